use bytes::Bytes;
use http::HeaderMap;

/// How a call ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// gRPC's status; `None` where the call ended without one, as after a reset.
    pub code: Option<u32>,
    /// The status's text, or what broke the call.
    pub text: String,
    /// The messages that came before, without their envelopes.
    pub messages: Vec<Bytes>,
}

impl Reply {
    /// A call that ended without a status.
    pub fn broken(text: impl ToString) -> Self {
        Self { code: None, text: text.to_string(), messages: Vec::new() }
    }

    /// Whether the call succeeded.
    pub fn is_ok(&self) -> bool {
        self.code == Some(0)
    }

    /// The status in headers or trailers, if there is one.
    pub(super) fn status(headers: &HeaderMap) -> Option<(u32, String)> {
        let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
        let text = headers.get("grpc-message").map(|text| percent_decoded(text.as_bytes())).unwrap_or_default();
        Some((code, text))
    }
}

/// gRPC sends texts percent-encoded.
fn percent_decoded(text: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        let escaped = (first == b'%').then(|| behind.get(..2)).flatten();
        let byte = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        decoded.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_decoded() {
        assert_eq!(percent_decoded(b"a%20b%25"), "a b%");
        assert_eq!(percent_decoded(b"100%"), "100%");
        assert_eq!(percent_decoded(b"%zz%4"), "%zz%4");
        assert_eq!(percent_decoded("%C3%A9".as_bytes()), "é");
    }
}
