//! Texts with variables in braces, such as `https://{host}{path}{query}`: what a route writes into header fields,
//! targets and redirects.
//!
//! A template is taken apart once, when the config is read. A brace is written twice to stand for itself.

/// Something about a request that a template can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// The client's IP address; behind trusted proxies, the one that they report.
    ClientAddress,
    /// Host that was asked, in lower case and without a port.
    Host,
    /// Method.
    Method,
    /// Path as the client asked for it, in normal form.
    Path,
    /// Query with its `?`; nothing when there is none.
    Query,
    /// Name of the request, as the access log and the backend know it.
    RequestId,
    /// Name of the route.
    Route,
    /// `http` or `https`.
    Scheme,
}

impl Variable {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::ClientAddress,
        Self::Host,
        Self::Method,
        Self::Path,
        Self::Query,
        Self::RequestId,
        Self::Route,
        Self::Scheme,
    ];

    /// The name between the braces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientAddress => "client_address",
            Self::Host => "host",
            Self::Method => "method",
            Self::Path => "path",
            Self::Query => "query",
            Self::RequestId => "request_id",
            Self::Route => "route",
            Self::Scheme => "scheme",
        }
    }
}

/// A piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Written as it stands; never empty.
    Text(String),
    /// What the request says.
    Variable(Variable),
    /// What a group of the pattern beside it matched; 0 is the whole.
    Group(u8),
}

/// A text with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// Why a text is not a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its other half.
    #[error("`{0}` stands alone")]
    Unpaired(char),
    /// A name that is none of those allowed.
    #[error("there is no variable `{{{0}}}` here")]
    Unknown(String),
    /// A group that the pattern does not have.
    #[error("`{{{0}}}` names a group, but the pattern has {1}")]
    NoGroup(String, usize),
    /// Too many pieces.
    #[error("there are more than {MAX_PIECES} variables")]
    TooMany,
}

/// Most pieces of a template: what bounds its length once filled in.
pub const MAX_PIECES: usize = 32;

impl Template {
    /// Takes a text apart. `variables` may be named in it, and the groups of a pattern by number, of which there
    /// are `groups` (not counting the whole); `None` where there is no pattern.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn parse(text: &str, variables: &[Variable], groups: Option<usize>) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            plain.push_str(before);
            if brace.starts_with("{{") || brace.starts_with("}}") {
                plain.push_str(brace.get(..1).unwrap_or_default());
                rest = brace.get(2..).unwrap_or_default();
                continue;
            }
            let inner = brace.strip_prefix('{').ok_or(TemplateError::Unpaired('}'))?;
            let (name, after) = inner.split_once('}').ok_or(TemplateError::Unpaired('{'))?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece(name, variables, groups)?);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        match pieces.len() > MAX_PIECES {
            true => Err(TemplateError::TooMany),
            false => Ok(Self { pieces }),
        }
    }

    /// The pieces, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// What it begins with, as far as that is certain.
    pub fn start(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Text(text)) => text,
            _ => "",
        }
    }
}

fn piece(name: &str, variables: &[Variable], groups: Option<usize>) -> Result<Piece, TemplateError> {
    if let Some(variable) = variables.iter().find(|v| v.as_str() == name) {
        return Ok(Piece::Variable(*variable));
    }
    let digits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    match (groups, name.parse::<u8>()) {
        (Some(groups), Ok(number)) if digits && usize::from(number) <= groups => Ok(Piece::Group(number)),
        (Some(groups), _) if digits => Err(TemplateError::NoGroup(shorten(name), groups)),
        _ => Err(TemplateError::Unknown(shorten(name))),
    }
}

fn shorten(name: &str) -> String {
    name.chars().take(40).flat_map(char::escape_debug).collect()
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Piece::Variable(variable) => write!(f, "{{{}}}", variable.as_str())?,
                Piece::Group(number) => write!(f, "{{{number}}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn parse(text: &str) -> Result<Template, TemplateError> {
        Template::parse(text, &Variable::ALL, Some(2))
    }

    #[test]
    fn a_template_is_text_variables_and_groups() {
        let template = parse("https://{host}:8443/{{x}}{1}").unwrap();
        assert_eq!(
            template.pieces(),
            [
                Piece::Text("https://".into()),
                Piece::Variable(Variable::Host),
                Piece::Text(":8443/{x}".into()),
                Piece::Group(1),
            ]
        );
        assert_eq!(template.start(), "https://");
    }

    #[test]
    fn a_template_written_out_reads_back_as_the_same() {
        for text in ["", "plain", "{{}}", "{host}{path}{query}", "a{{{route}}}b{2}"] {
            let template = parse(text).unwrap();
            assert_eq!(template.to_string(), text);
            assert_eq!(parse(&template.to_string()).unwrap(), template);
        }
    }

    #[test]
    fn what_is_no_template_says_why() {
        for (text, why) in [
            ("{host", TemplateError::Unpaired('{')),
            ("host}", TemplateError::Unpaired('}')),
            ("{}", TemplateError::Unknown(String::new())),
            ("{Host}", TemplateError::Unknown("Host".into())),
            ("{3}", TemplateError::NoGroup("3".into(), 2)),
            ("{999}", TemplateError::NoGroup("999".into(), 2)),
        ] {
            assert_eq!(parse(text), Err(why), "{text}");
        }
        let without = Template::parse("{1}", &Variable::ALL, None);
        assert_eq!(without, Err(TemplateError::Unknown("1".into())));
        assert_eq!(parse(&"{host}".repeat(33)), Err(TemplateError::TooMany));
    }
}
