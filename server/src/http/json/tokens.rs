//! The tokens of a JSON value that is known to be one, with the positions and words of Go's protobuf library (pure).

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number,
    String,
    ObjectOpen,
    ObjectClose,
    ArrayOpen,
    ArrayClose,
    /// A string before a colon.
    Name,
    End,
}

/// One token and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    /// As it stands in the value.
    pub(super) raw: &'a str,
    at: usize,
    /// What a string or a name means.
    pub(super) text: String,
}

/// Reads tokens one by one.
pub(super) struct Tokens<'a> {
    value: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn of(value: &'a [u8]) -> Self {
        Self { value, at: 0 }
    }

    /// The next token. Commas and colons are none.
    pub(super) fn next(&mut self) -> Result<Token<'a>, String> {
        self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b','));
        let at = self.at;
        let Some(&first) = self.value.get(at) else {
            return Ok(self.token(Kind::End, at, String::new()));
        };
        match first {
            b'{' => Ok(self.mark(Kind::ObjectOpen)),
            b'}' => Ok(self.mark(Kind::ObjectClose)),
            b'[' => Ok(self.mark(Kind::ArrayOpen)),
            b']' => Ok(self.mark(Kind::ArrayClose)),
            b'"' => self.string(),
            _ => {
                self.skip(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
                let kind = match first {
                    b'n' => Kind::Null,
                    b't' => Kind::Bool(true),
                    b'f' => Kind::Bool(false),
                    _ => Kind::Number,
                };
                Ok(self.token(kind, at, String::new()))
            }
        }
    }

    /// The next token, which is read again.
    pub(super) fn peek(&mut self) -> Result<Token<'a>, String> {
        let at = self.at;
        let token = self.next();
        self.at = at;
        token
    }

    /// A mistake about a token.
    pub(super) fn mistake(&self, token: &Token<'_>, text: &str) -> String {
        format!("proto: ({}): {text}", self.position(token.at))
    }

    /// A mistake in the order of tokens.
    pub(super) fn unexpected(&self, token: &Token<'_>) -> String {
        self.syntax(token.at, &format!("unexpected token {}", token.raw))
    }

    fn syntax(&self, at: usize, text: &str) -> String {
        format!("proto: syntax error ({}): {text}", self.position(at))
    }

    fn position(&self, at: usize) -> String {
        let before = &self.value[..at];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        format!("line {line}:{column}")
    }

    fn skip(&mut self, is_skipped: impl Fn(u8) -> bool) {
        while self.value.get(self.at).is_some_and(|byte| is_skipped(*byte)) {
            self.at += 1;
        }
    }

    fn mark(&mut self, kind: Kind) -> Token<'a> {
        let at = self.at;
        self.at += 1;
        self.token(kind, at, String::new())
    }

    /// What was read since a place.
    fn token(&self, kind: Kind, at: usize, text: String) -> Token<'a> {
        // Strings were found to be UTF-8 when they were read, and all else is ASCII.
        let raw = str::from_utf8(&self.value[at..self.at]).unwrap_or_default();
        Token { kind, raw, at, text }
    }

    fn string(&mut self) -> Result<Token<'a>, String> {
        let at = self.at;
        let mut text = Vec::new();
        self.at += 1;
        loop {
            let rest = &self.value[self.at..];
            match rest {
                [] => return Err(unexpected_end()),
                [b'"', ..] => break,
                [b'\\', b'u', ..] => {
                    let character = self.escaped(at)?;
                    text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                [b'\\', letter, ..] => {
                    text.push(match letter {
                        b'b' => 0x08,
                        b'f' => 0x0c,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        other => *other,
                    });
                    self.at += 2;
                }
                [byte, ..] => {
                    text.push(*byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        let text = String::from_utf8(text).map_err(|_| self.syntax(at, "invalid UTF-8 in string"))?;
        let token = self.token(Kind::String, at, text);
        self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
        if self.value.get(self.at) == Some(&b':') {
            self.at += 1;
            return Ok(Token { kind: Kind::Name, ..token });
        }
        Ok(token)
    }

    /// Reads `\u` and its digits, twice where they are one half of a character.
    fn escaped(&mut self, string_at: usize) -> Result<char, String> {
        let first = self.code_unit();
        self.at += 6;
        if !(0xd800..0xe000).contains(&first) {
            return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let rest = &self.value[self.at..];
        if rest.len() < 6 {
            return Err(unexpected_end());
        }
        let second = if rest.starts_with(b"\\u") { self.code_unit() } else { 0 };
        let units = [first as u16, second as u16];
        let character = char::decode_utf16(units).next().and_then(Result::ok);
        let shown = String::from_utf8_lossy(&rest[..6]).into_owned();
        self.at += 6;
        character.ok_or_else(|| self.syntax(string_at, &format!("invalid escape code {shown:?} in string")))
    }

    /// The number behind `\u`; the digits were looked at before.
    fn code_unit(&self) -> u32 {
        let digits = self.value.get(self.at + 2..self.at + 6).and_then(|digits| str::from_utf8(digits).ok());
        digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default()
    }
}

pub(super) fn unexpected_end() -> String {
    "proto: unexpected EOF".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(value: &str) -> Result<Vec<(Kind, String)>, String> {
        let mut tokens = Tokens::of(value.as_bytes());
        let mut found = Vec::new();
        loop {
            let token = tokens.next()?;
            if token.kind == Kind::End {
                return Ok(found);
            }
            found.push((token.kind, token.text));
        }
    }

    #[test]
    fn strings_are_read() {
        let strings = |value| texts(value).map(|tokens| tokens.into_iter().map(|(_, text)| text).collect::<Vec<_>>());
        assert_eq!(strings(r#""a\n\"\\\/é\u00e9\ud83d\ude00""#).unwrap(), ["a\n\"\\/éé😀"]);
        assert_eq!(strings(r#"{"YQ\ud800"}"#), Err("proto: unexpected EOF".to_owned()));
        assert_eq!(
            strings(r#"["\ud800\u0041"]"#),
            Err(r#"proto: syntax error (line 1:2): invalid escape code "\\u0041" in string"#.to_owned())
        );
        let mut tokens = Tokens::of(b"\"\xff\"");
        assert_eq!(tokens.next(), Err("proto: syntax error (line 1:1): invalid UTF-8 in string".to_owned()));
    }

    #[test]
    fn names_stand_before_colons() {
        let kinds = texts(r#"{"a" : ["b", -1.5e3, true, null]}"#).unwrap().into_iter().map(|(kind, _)| kind);
        let expected = [
            Kind::ObjectOpen,
            Kind::Name,
            Kind::ArrayOpen,
            Kind::String,
            Kind::Number,
            Kind::Bool(true),
            Kind::Null,
            Kind::ArrayClose,
            Kind::ObjectClose,
        ];
        assert_eq!(kinds.collect::<Vec<_>>(), expected);
    }
}
