//! Where an address is, as far as a database tells.

use serde::{Deserialize, Serialize};

/// Country and continent of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geography {
    /// ISO 3166-1 code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<Code>,
    /// Code of the continent, such as `EU`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continent: Option<Code>,
}

/// Two capital letters that name a country or continent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Code([u8; 2]);

impl Code {
    /// Reads a code; `None` for anything but two ASCII letters.
    pub fn parse(text: &str) -> Option<Self> {
        let code: [u8; 2] = text.as_bytes().try_into().ok()?;
        code.iter()
            .all(u8::is_ascii_alphabetic)
            .then(|| Self(code.map(|letter| letter.to_ascii_uppercase())))
    }

    /// Its letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("")
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl TryFrom<String> for Code {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("`{text}` is not a code of two letters"))
    }
}

impl From<Code> for String {
    fn from(code: Code) -> Self {
        code.as_str().to_owned()
    }
}
