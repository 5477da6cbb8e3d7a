//! Cuts a body into JSON values, with the words for mistakes of Go's decoder, which etcd answers with (pure).

use bytes::{Bytes, BytesMut};

/// How deep values may nest, as in Go.
const DEPTH_MAX: usize = 10_000;

/// A body that is no JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// A character is out of place.
    Syntax(String),
    /// A value ends in the middle.
    UnexpectedEnd,
    /// A value has more bytes than are allowed.
    TooLarge,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Syntax(text) => formatter.write_str(text),
            Self::UnexpectedEnd => formatter.write_str("unexpected EOF"),
            Self::TooLarge => formatter.write_str("mainstay: the JSON value is too large"),
        }
    }
}

/// The values of a body that comes in pieces.
pub(super) struct Values {
    left: BytesMut,
    /// How much of that was looked at.
    scanned: usize,
    scanner: Scanner,
    bytes_max: usize,
}

impl Values {
    /// No value may have more bytes than this.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { left: BytesMut::new(), scanned: 0, scanner: Scanner::default(), bytes_max }
    }

    /// The bytes that were taken, and are in no value yet.
    pub(super) fn len(&self) -> usize {
        self.left.len()
    }

    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.left.extend_from_slice(piece);
    }

    /// The next value that is there as a whole.
    pub(super) fn take(&mut self) -> Result<Option<Bytes>, Malformed> {
        while let Some(&byte) = self.left.get(self.scanned) {
            match self.scanner.step(byte)? {
                Step::Goes => self.scanned += 1,
                Step::EndsBefore => return Ok(Some(self.cut())),
                Step::EndsWith => {
                    self.scanned += 1;
                    return Ok(Some(self.cut()));
                }
            }
            if self.scanned > self.bytes_max {
                return Err(Malformed::TooLarge);
            }
        }
        Ok(None)
    }

    /// The last value, once there are no more pieces.
    pub(super) fn finish(&mut self) -> Result<Option<Bytes>, Malformed> {
        if let Some(value) = self.take()? {
            return Ok(Some(value));
        }
        if self.left.iter().all(|byte| is_space(*byte)) {
            return Ok(None);
        }
        match self.scanner.step(b' ') {
            Ok(Step::EndsBefore) => Ok(Some(self.cut())),
            _ => Err(Malformed::UnexpectedEnd),
        }
    }

    fn cut(&mut self) -> Bytes {
        let value = self.left.split_to(self.scanned).freeze();
        self.scanned = 0;
        self.scanner = Scanner::default();
        value.slice_ref(value.trim_ascii())
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// What a byte means for the value.
enum Step {
    Goes,
    /// The value was complete before this byte.
    EndsBefore,
    EndsWith,
}

/// What the scanner is in.
#[derive(Clone, Copy)]
enum Inside {
    ObjectKey,
    ObjectValue,
    Array,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    BeginValue,
    BeginValueOrEmpty,
    BeginKey,
    BeginKeyOrEmpty,
    EndValue,
    InString,
    Escape,
    /// Digits of `\u` that are still to come.
    Hex(u8),
    Negative,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    /// A word of which that many letters were seen.
    Word(&'static str, usize),
}

#[derive(Default)]
struct Scanner {
    state: State,
    inside: Vec<Inside>,
}

impl Scanner {
    fn step(&mut self, byte: u8) -> Result<Step, Malformed> {
        let next = match (self.state, byte) {
            (State::BeginValue | State::BeginValueOrEmpty | State::BeginKey | State::BeginKeyOrEmpty, byte)
                if is_space(byte) =>
            {
                return Ok(Step::Goes);
            }
            (State::BeginValueOrEmpty, b']') => return Ok(self.leave()),
            (State::BeginKeyOrEmpty, b'}') => return Ok(self.leave()),
            (State::BeginValue | State::BeginValueOrEmpty, _) => self.begin(byte)?,
            (State::BeginKey | State::BeginKeyOrEmpty, b'"') => State::InString,
            (State::BeginKey | State::BeginKeyOrEmpty, _) => {
                return Err(unexpected(byte, "looking for beginning of object key string"));
            }
            (State::EndValue, _) => return self.end(byte),
            (State::InString, b'"') => State::EndValue,
            (State::InString, b'\\') => State::Escape,
            (State::InString, ..0x20) => return Err(unexpected(byte, "in string literal")),
            (State::InString, _) => State::InString,
            (State::Escape, b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => State::InString,
            (State::Escape, b'u') => State::Hex(4),
            (State::Escape, _) => return Err(unexpected(byte, "in string escape code")),
            (State::Hex(1), byte) if byte.is_ascii_hexdigit() => State::InString,
            (State::Hex(left), byte) if byte.is_ascii_hexdigit() => State::Hex(left - 1),
            (State::Hex(_), _) => return Err(unexpected(byte, "in \\u hexadecimal character escape")),
            (State::Negative, b'0') => State::Zero,
            (State::Negative, b'1'..=b'9') => State::Digits,
            (State::Negative, _) => return Err(unexpected(byte, "in numeric literal")),
            (State::Digits, b'0'..=b'9') => State::Digits,
            (State::Zero | State::Digits, b'.') => State::Point,
            (State::Zero | State::Digits | State::Fraction, b'e' | b'E') => State::Exponent,
            (State::Zero | State::Digits, _) => return self.end(byte),
            (State::Point | State::Fraction, b'0'..=b'9') => State::Fraction,
            (State::Point, _) => return Err(unexpected(byte, "after decimal point in numeric literal")),
            (State::Fraction, _) => return self.end(byte),
            (State::Exponent, b'+' | b'-') => State::ExponentSign,
            (State::Exponent | State::ExponentSign | State::ExponentDigits, b'0'..=b'9') => State::ExponentDigits,
            (State::Exponent | State::ExponentSign, _) => {
                return Err(unexpected(byte, "in exponent of numeric literal"));
            }
            (State::ExponentDigits, _) => return self.end(byte),
            (State::Word(word, seen), _) => match word.as_bytes().get(seen) {
                Some(&letter) if letter == byte && seen + 1 == word.len() => State::EndValue,
                Some(&letter) if letter == byte => State::Word(word, seen + 1),
                letter => {
                    let letter = char::from(letter.copied().unwrap_or_default());
                    return Err(unexpected(byte, &format!("in literal {word} (expecting '{letter}')")));
                }
            },
        };
        self.state = next;
        Ok(Step::Goes)
    }

    /// The state after a value's first byte.
    fn begin(&mut self, byte: u8) -> Result<State, Malformed> {
        Ok(match byte {
            b'{' => self.enter(Inside::ObjectKey, State::BeginKeyOrEmpty)?,
            b'[' => self.enter(Inside::Array, State::BeginValueOrEmpty)?,
            b'"' => State::InString,
            b'-' => State::Negative,
            b'0' => State::Zero,
            b'1'..=b'9' => State::Digits,
            b't' => State::Word("true", 1),
            b'f' => State::Word("false", 1),
            b'n' => State::Word("null", 1),
            _ => return Err(unexpected(byte, "looking for beginning of value")),
        })
    }

    fn enter(&mut self, inside: Inside, state: State) -> Result<State, Malformed> {
        self.inside.push(inside);
        if self.inside.len() > DEPTH_MAX {
            return Err(Malformed::Syntax("exceeded max depth".to_owned()));
        }
        Ok(state)
    }

    fn leave(&mut self) -> Step {
        self.inside.pop();
        self.state = State::EndValue;
        if self.inside.is_empty() { Step::EndsWith } else { Step::Goes }
    }

    /// Takes a byte behind a value.
    fn end(&mut self, byte: u8) -> Result<Step, Malformed> {
        let Some(inside) = self.inside.last_mut() else { return Ok(Step::EndsBefore) };
        if is_space(byte) {
            self.state = State::EndValue;
            return Ok(Step::Goes);
        }
        self.state = match (*inside, byte) {
            (Inside::ObjectKey, b':') => {
                *inside = Inside::ObjectValue;
                State::BeginValue
            }
            (Inside::ObjectValue, b',') => {
                *inside = Inside::ObjectKey;
                State::BeginKey
            }
            (Inside::Array, b',') => State::BeginValue,
            (Inside::ObjectValue, b'}') | (Inside::Array, b']') => return Ok(self.leave()),
            (Inside::ObjectKey, _) => return Err(unexpected(byte, "after object key")),
            (Inside::ObjectValue, _) => return Err(unexpected(byte, "after object key:value pair")),
            (Inside::Array, _) => return Err(unexpected(byte, "after array element")),
        };
        Ok(Step::Goes)
    }
}

fn unexpected(byte: u8, context: &str) -> Malformed {
    Malformed::Syntax(format!("invalid character {} {context}", quoted(byte)))
}

/// A character as Go shows it. Bytes are taken for characters.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        ..0x20 | 0x7f => format!(r"'\x{byte:02x}'"),
        // Go counts these among what cannot be printed.
        0x80..=0xa0 | 0xad => format!(r"'\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of a body, however it is cut, and the mistake behind them.
    fn cut(body: &str) -> (Vec<String>, Option<String>) {
        let run = |size: usize| {
            let mut values = Values::new(1_000);
            let mut found = Vec::new();
            for piece in body.as_bytes().chunks(size) {
                values.push(piece);
                loop {
                    match values.take() {
                        Ok(Some(value)) => found.push(String::from_utf8(value.to_vec()).unwrap()),
                        Ok(None) => break,
                        Err(error) => return (found, Some(error.to_string())),
                    }
                }
            }
            match values.finish() {
                Ok(value) => found.extend(value.map(|value| String::from_utf8(value.to_vec()).unwrap())),
                Err(error) => return (found, Some(error.to_string())),
            }
            (found, None)
        };
        let whole = run(body.len().max(1));
        for size in [1, 2, 3] {
            assert_eq!(run(size), whole, "{body} in pieces of {size}");
        }
        whole
    }

    #[test]
    fn values_are_found_however_the_body_is_cut() {
        for (body, expected) in [
            ("", vec![]),
            (" \n", vec![]),
            (r#" {"a":[1,-2.5e+3,0]} "#, vec![r#"{"a":[1,-2.5e+3,0]}"#]),
            (r#"{}{"}":"\"}"}[]"#, vec!["{}", r#"{"}":"\"}"}"#, "[]"]),
            ("1 2", vec!["1", "2"]),
            ("true", vec!["true"]),
            (r#""a""b""#, vec![r#""a""#, r#""b""#]),
            (r#"{"a":"\u00e9"}"#, vec![r#"{"a":"\u00e9"}"#]),
        ] {
            let expected = expected.into_iter().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(cut(body), (expected, None), "{body}");
        }
    }

    #[test]
    fn mistakes_are_gos() {
        for (body, error) in [
            ("x", "invalid character 'x' looking for beginning of value"),
            (r#"{"key":"YQ==",}"#, "invalid character '}' looking for beginning of object key string"),
            (r#"{"key" "YQ=="}"#, "invalid character '\"' after object key"),
            (r#"{"key":"YQ==" "a":1}"#, "invalid character '\"' after object key:value pair"),
            (r#"{"key":tru}"#, "invalid character '}' in literal true (expecting 'e')"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[01]", "invalid character '1' after array element"),
            ("[-]", "invalid character ']' in numeric literal"),
            ("[1.]", "invalid character ']' after decimal point in numeric literal"),
            ("[1e]", "invalid character ']' in exponent of numeric literal"),
            ("{\"a\u{1}", "invalid character '\\x01' in string literal"),
            (r#""\q""#, "invalid character 'q' in string escape code"),
            (r#""\u12g4""#, "invalid character 'g' in \\u hexadecimal character escape"),
            ("é", "invalid character 'Ã' looking for beginning of value"),
            (r#"{"key":"#, "unexpected EOF"),
            ("-", "unexpected EOF"),
        ] {
            assert_eq!(cut(body), (vec![], Some(error.to_owned())), "{body}");
        }
    }

    #[test]
    fn what_is_too_large_or_too_deep_is_refused() {
        let (found, error) = cut(&format!("{{}}\"{}\"", "a".repeat(1_000)));
        assert_eq!((found.len(), error.unwrap().as_str()), (1, "mainstay: the JSON value is too large"));
        let mut values = Values::new(usize::MAX);
        values.push("[".repeat(DEPTH_MAX + 1).as_bytes());
        assert_eq!(values.take(), Err(Malformed::Syntax("exceeded max depth".to_owned())));
    }
}
