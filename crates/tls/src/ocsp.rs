//! An OCSP response from a file (RFC 6960), looked into as far as is needed not to send a wrong or old one.
//! Whether it is signed by the right one, clients verify.

use std::path::Path;

use x509_parser::asn1_rs::{Any, FromDer, GeneralizedTime, OctetString};

use crate::pem::{self, LoadError};

/// A response, as it is sent.
pub(crate) struct Response {
    pub(crate) bytes: Vec<u8>,
    /// When it is out of date, in seconds since 1970, if it says so.
    pub(crate) until: Option<i64>,
}

pub(crate) fn read(path: &Path) -> Result<Response, LoadError> {
    let bytes = pem::read(path)?;
    let name = path.display();
    let until = next_update(&bytes).ok_or_else(|| {
        LoadError(format!(
            "{name} is not a successful OCSP response in DER, as `openssl ocsp -respout` writes it"
        ))
    })?;
    Ok(Response { bytes, until })
}

/// When the response is out of date, if it says so. `None`: it is no successful basic response.
fn next_update(der: &[u8]) -> Option<Option<i64>> {
    // OCSPResponse ::= SEQUENCE { responseStatus ENUMERATED, responseBytes [0] EXPLICIT ResponseBytes }
    let (_, response) = Any::from_der(der).ok()?;
    let (rest, status) = Any::from_der(response.data).ok()?;
    if status.data != [0] {
        return None;
    }
    let (_, tagged) = Any::from_der(rest).ok()?;
    // ResponseBytes ::= SEQUENCE { responseType OBJECT IDENTIFIER, response OCTET STRING }
    let (_, bytes) = Any::from_der(tagged.data).ok()?;
    let (rest, _kind) = Any::from_der(bytes.data).ok()?;
    let (_, basic) = OctetString::from_der(rest).ok()?;
    // BasicOCSPResponse ::= SEQUENCE { tbsResponseData, … }
    let (_, basic) = Any::from_der(basic.as_cow()).ok()?;
    let (_, data) = Any::from_der(basic.data).ok()?;
    // ResponseData ::= SEQUENCE { version [0]?, responderID [1] or [2], producedAt, responses SEQUENCE OF …, … }
    let mut rest = data.data;
    let responses = loop {
        let (after, part) = Any::from_der(rest).ok()?;
        rest = after;
        if part.header.is_universal() && part.header.tag().0 == 16 {
            break part;
        }
    };
    // SingleResponse ::= SEQUENCE { certID, certStatus, thisUpdate, nextUpdate [0] EXPLICIT?, … }
    let (_, single) = Any::from_der(responses.data).ok()?;
    let (rest, _id) = Any::from_der(single.data).ok()?;
    let (rest, _status) = Any::from_der(rest).ok()?;
    let (rest, _this_update) = GeneralizedTime::from_der(rest).ok()?;
    let Ok((_, tagged)) = Any::from_der(rest) else {
        return Some(None);
    };
    if !tagged.header.is_contextspecific() || tagged.header.tag().0 != 0 {
        return Some(None);
    }
    let (_, end) = GeneralizedTime::from_der(tagged.data).ok()?;
    Some(Some(end.utc_datetime().ok()?.unix_timestamp()))
}
