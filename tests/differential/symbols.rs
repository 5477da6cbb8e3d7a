//! Numbers of a script that only a run knows: the current revision, a lease's id that a server picked.
//!
//! A step that said `revision: 731` would mean something else as soon as an earlier step is left out.
//! So it says `revision: @now-3`. In a message, where there is only room for a number, a symbol is one
//! from a window of numbers that no server ever uses, and the text form names it.

use std::fmt::Write as _;

use bytes::Bytes;
use prost_reflect::{DynamicMessage, Value};

use mainstay_tests::schema::for_each_message;

/// Where the windows begin.
const BASE: i64 = 0x4d53_0000_0000_0000;
/// The first 32 bits are the offset from the middle, so that it may be negative.
const WINDOW: i64 = 1 << 32;
const MIDDLE: i64 = 1 << 31;
/// Bytes that begin so are as many `x` as the number behind it says.
const FILL: &[u8] = b"@fill:";

/// What a symbol stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Symbol {
    /// The revision of the store before the step, plus this.
    Now(i64),
    /// The revision below which history was last compacted, plus this.
    Compacted(i64),
    /// The id of a lease that the server picked: the first is 0.
    Lease(i64),
    /// The id of the member itself.
    Member,
}

impl Symbol {
    /// The number that stands for it in messages.
    pub(crate) fn number(self) -> i64 {
        let (window, offset) = match self {
            Self::Now(offset) => (0, offset),
            Self::Compacted(offset) => (1, offset),
            Self::Lease(place) => (2, place),
            Self::Member => (3, 0),
        };
        assert!((-MIDDLE..MIDDLE).contains(&offset), "{offset} is too far away for a symbol");
        BASE + window * WINDOW + MIDDLE + offset
    }

    /// What a number stands for, if it is a symbol's.
    pub(crate) fn of(number: i64) -> Option<Self> {
        let place = number.checked_sub(BASE).filter(|place| *place >= 0)?;
        let offset = place % WINDOW - MIDDLE;
        match place / WINDOW {
            0 => Some(Self::Now(offset)),
            1 => Some(Self::Compacted(offset)),
            2 => Some(Self::Lease(offset)),
            3 => Some(Self::Member),
            _ => None,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Now(offset) => format!("@now{offset:+}"),
            Self::Compacted(offset) => format!("@compacted{offset:+}"),
            Self::Lease(place) => format!("@lease{place:+}"),
            Self::Member => "@member+0".to_owned(),
        }
    }

    fn named(name: &str, offset: i64) -> Option<Self> {
        match name {
            "now" => Some(Self::Now(offset)),
            "compacted" => Some(Self::Compacted(offset)),
            "lease" => Some(Self::Lease(offset)),
            "member" => Some(Self::Member),
            _ => None,
        }
    }
}

/// Replaces every symbol of a message by what it stands for.
pub(crate) fn resolve(message: &mut DynamicMessage, meaning: &impl Fn(Symbol) -> i64) {
    let number = |number: i64| Symbol::of(number).map_or(number, meaning);
    each_value(message, &mut |value| match value {
        Value::I64(signed) => *signed = number(*signed),
        Value::U64(unsigned) => *unsigned = number(unsigned.cast_signed()).cast_unsigned(),
        Value::Bytes(bytes) => {
            let count = bytes.strip_prefix(FILL).and_then(|count| std::str::from_utf8(count).ok()?.parse().ok());
            if let Some(count) = count {
                *bytes = Bytes::from(vec![b'x'; count]);
            }
        }
        _ => {}
    });
}

/// Calls `change` for every value of a message and of those within.
pub(crate) fn each_value(message: &mut DynamicMessage, change: &mut impl FnMut(&mut Value)) {
    for_each_message(message, &mut |inner| {
        for (_, value) in inner.fields_mut() {
            match value {
                Value::List(values) => values.iter_mut().for_each(&mut *change),
                value => change(value),
            }
        }
    });
}

/// The text form of messages with names for symbols.
pub(crate) fn with_names(text: &str) -> String {
    outside_of_strings(text, |outside, out| {
        let mut rest = outside;
        while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
            let digits = &rest[start..];
            let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            out.push_str(&rest[..start]);
            match digits[..end].parse().ok().and_then(Symbol::of) {
                Some(symbol) => out.push_str(&symbol.name()),
                None => out.push_str(&digits[..end]),
            }
            rest = &digits[end..];
        }
        out.push_str(rest);
    })
}

/// Text with the numbers that stand for symbols instead of their names.
pub(crate) fn without_names(text: &str) -> String {
    outside_of_strings(text, |outside, out| {
        let mut rest = outside;
        while let Some((before, behind)) = rest.split_once('@') {
            out.push_str(before);
            let name_end = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
            let (name, offset) = behind.split_at(name_end);
            let signed = offset.find(|c: char| !matches!(c, '+' | '-' | '0'..='9')).unwrap_or(offset.len());
            match offset[..signed].parse().ok().and_then(|offset| Symbol::named(name, offset)) {
                // The text format takes anything else for a fault, and says where.
                None => out.push('@'),
                Some(symbol) => write!(out, "{}", symbol.number()).expect("a string takes all"),
            }
            rest = if out.ends_with('@') { behind } else { &offset[signed..] };
        }
        out.push_str(rest);
    })
}

/// Rewrites what stands outside of quoted strings.
fn outside_of_strings(text: &str, rewrite: impl Fn(&str, &mut String)) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(quote) = rest.find(['"', '\'']) {
        rewrite(&rest[..quote], &mut out);
        let string = &rest[quote..];
        let mut escaped = true; // the opening quote is none that closes
        let close = string.find(|c| {
            let closes = !escaped && string.starts_with(c);
            escaped = !escaped && c == '\\';
            closes
        });
        let end = close.map_or(string.len(), |close| close + 1);
        out.push_str(&string[..end]);
        rest = &string[end..];
    }
    rewrite(rest, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_have_numbers_and_names() {
        for symbol in [Symbol::Now(0), Symbol::Now(-7), Symbol::Compacted(1), Symbol::Lease(3), Symbol::Member] {
            assert_eq!(Symbol::of(symbol.number()), Some(symbol));
            let text = format!("revision:{} key:\"{}\"", symbol.number(), symbol.number());
            let named = with_names(&text);
            assert!(named.starts_with("revision:@") && named.ends_with(&format!("\"{}\"", symbol.number())), "{named}");
            assert_eq!(without_names(&named), text);
        }
        for number in [0, -1, 5, i64::MAX, i64::MIN, BASE - 1, BASE + 4 * WINDOW] {
            assert_eq!(Symbol::of(number), None, "{number}");
        }
    }

    #[test]
    fn strings_are_left_alone() {
        for text in [r#"key:"@now-1""#, r#"a:"\"@now-1" b:'@now+0'"#, r#"unclosed:"@now"#, ""] {
            assert_eq!(without_names(text), text);
        }
        assert_eq!(without_names("x:@never+1 y:@"), "x:@never+1 y:@");
    }

    #[test]
    fn meanings_replace_symbols_wherever_they_stand() {
        let text = without_names("success { request_range { key: '@fill:3' revision: @now-1 limit: 5 } }");
        let descriptor = mainstay_tests::schema::message("etcdserverpb.TxnRequest");
        let mut message = DynamicMessage::parse_text_format(descriptor, &text).unwrap();
        resolve(&mut message, &|symbol| if symbol == Symbol::Now(-1) { 41 } else { 0 });
        assert_eq!(message.to_text_format(), r#"success:[{request_range{key:"xxx",limit:5,revision:41}}]"#);
    }
}
