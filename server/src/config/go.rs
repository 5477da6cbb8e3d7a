//! Go's conventions for values on a command line (pure): what `flag`, `strconv` and `time` accept and say.

use std::fmt::Write as _;

/// Why a text is not a value of its kind, in Go's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    /// The text has another form.
    #[error("parse error")]
    Syntax,
    /// The number does not fit.
    #[error("value out of range")]
    Range,
}

/// Reads a boolean as `strconv.ParseBool` does.
pub(crate) fn parse_bool(text: &str) -> Result<bool, ValueError> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(ValueError::Syntax),
    }
}

/// Reads an unsigned integer of up to `bits` bits as `strconv.ParseUint` with base 0 does:
/// `0x`, `0o`, `0b` and a leading zero name the base.
pub(crate) fn parse_uint(text: &str, bits: u32) -> Result<u64, ValueError> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    // Go allows `_` between digits, and after a base prefix.
    if digits.ends_with('_') || digits.contains("__") || (radix == 10 && digits.starts_with('_')) {
        return Err(ValueError::Syntax);
    }
    let digits = digits.replace('_', "");
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(ValueError::Syntax);
    }
    let number = u64::from_str_radix(&digits, radix).map_err(|_| ValueError::Range)?;
    if bits < 64 && number >> bits != 0 { Err(ValueError::Range) } else { Ok(number) }
}

/// Reads a signed integer of 64 bits, by the same rules.
pub(crate) fn parse_int(text: &str) -> Result<i64, ValueError> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let number = i128::from(parse_uint(digits, 64)?);
    i64::try_from(if negative { -number } else { number }).map_err(|_| ValueError::Range)
}

/// Reads a duration such as `1h15m30.5s` into nanoseconds, as `time.ParseDuration` does.
pub(crate) fn parse_duration(text: &str) -> Result<i64, ValueError> {
    let (negative, mut rest) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(ValueError::Syntax);
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(ValueError::Syntax)?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(ValueError::Syntax);
        }
        let unit = unit_nanoseconds(unit).ok_or(ValueError::Syntax)?;
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| ValueError::Syntax)? };
        total = whole.checked_mul(unit).and_then(|n| n.checked_add(total)).ok_or(ValueError::Syntax)?;
        // Digits below a nanosecond are dropped, so a long fraction needs only its beginning.
        let mut scale = unit;
        for digit in fraction.bytes() {
            scale /= 10;
            total += i128::from(digit - b'0') * scale;
        }
        rest = tail;
    }
    // Go reports an overflow of a duration as a parse error too.
    i64::try_from(if negative { -total } else { total }).map_err(|_| ValueError::Syntax)
}

fn unit_nanoseconds(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        _ => return None,
    })
}

/// Writes nanoseconds as `time.Duration` prints them: `1h0m0s`, `300ms`, `0s`.
pub(crate) fn format_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let n = nanoseconds.unsigned_abs();
    let (unit, divisor) = match n {
        0 => return "0s".to_owned(),
        1..1_000 => ("ns", 1),
        1_000..1_000_000 => ("µs", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    let mut out = sign.to_owned();
    let mut whole = n / divisor;
    if unit == "s" && whole >= 60 {
        if whole >= 3_600 {
            let _infallible = write!(out, "{}h", whole / 3_600);
        }
        let _infallible = write!(out, "{}m", whole / 60 % 60);
        whole %= 60;
    }
    let _infallible = write!(out, "{whole}");
    let fraction = n % divisor;
    if fraction != 0 {
        let width = divisor.ilog10() as usize;
        let digits = format!("{fraction:0width$}");
        let _infallible = write!(out, ".{}", digits.trim_end_matches('0'));
    }
    out + unit
}

/// Writes an error of the system in Go's words, which are Rust's without capital and number.
pub fn io_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// One piece of a command line, taken apart but not yet understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// `-name`, `--name` or either with `=value`.
    Flag { name: &'a str, value: Option<&'a str> },
    /// The first argument that is not a flag; Go stops there.
    Positional(&'a str),
    /// `--`; Go stops there.
    End,
    /// A dash with nothing that could be a name.
    Bad,
}

/// Takes one argument apart as Go's `flag` does.
pub(crate) fn token(argument: &str) -> Token<'_> {
    let Some(rest) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
        return Token::Positional(argument);
    };
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    if rest.is_empty() {
        return Token::End;
    }
    if rest.starts_with(['-', '=']) {
        return Token::Bad;
    }
    match rest.split_once('=') {
        Some((name, value)) => Token::Flag { name, value: Some(value) },
        None => Token::Flag { name: rest, value: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(parse_bool(text), Ok(true), "{text}");
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(parse_bool(text), Ok(false), "{text}");
        }
        for text in ["", "yes", "on", "tRUE", "2"] {
            assert_eq!(parse_bool(text), Err(ValueError::Syntax), "{text}");
        }
    }

    #[test]
    fn integers() {
        assert_eq!(parse_uint("10000", 64), Ok(10_000));
        assert_eq!(parse_uint("0", 64), Ok(0));
        assert_eq!(parse_uint("0x10", 64), Ok(16));
        assert_eq!(parse_uint("0b11", 64), Ok(3));
        assert_eq!(parse_uint("010", 64), Ok(8));
        assert_eq!(parse_uint("0x1_0", 64), Ok(16));
        assert_eq!(parse_uint("1_000", 64), Ok(1_000));
        assert_eq!(parse_uint("4294967295", 32), Ok(4_294_967_295));
        assert_eq!(parse_uint("4294967296", 32), Err(ValueError::Range));
        assert_eq!(parse_uint("18446744073709551616", 64), Err(ValueError::Range));
        for text in ["", "-1", "+1", "1.5", "ten", "_1", "1_", "1__0", "0x", "08"] {
            assert_eq!(parse_uint(text, 64), Err(ValueError::Syntax), "{text}");
        }
        assert_eq!(parse_int("-1"), Ok(-1));
        assert_eq!(parse_int("+7"), Ok(7));
        assert_eq!(parse_int("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_int("9223372036854775808"), Err(ValueError::Range));
    }

    #[test]
    fn durations() {
        const SECOND: i64 = 1_000_000_000;
        for (text, expected) in [
            ("0", 0),
            ("0s", 0),
            ("5s", 5 * SECOND),
            ("2h0m0s", 7_200 * SECOND),
            ("1m30s", 90 * SECOND),
            ("1.5h", 5_400 * SECOND),
            (".5s", SECOND / 2),
            ("5.s", 5 * SECOND),
            ("300ms", 300_000_000),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("7ns", 7),
            ("-1s", -SECOND),
            ("+1s", SECOND),
            ("0.0000000019s", 1),
        ] {
            assert_eq!(parse_duration(text), Ok(expected), "{text}");
        }
        for text in ["", "5", "s", ".s", "1.2.3s", "1 s", "3d", "-", "9999999999h"] {
            assert_eq!(parse_duration(text), Err(ValueError::Syntax), "{text}");
        }
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for text in
            ["0s", "1ns", "1.1µs", "300ms", "2.2ms", "5s", "3.3s", "1m0s", "4m5.001s", "2h0m0s", "5h6m7.001s", "-1s"]
        {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn errors_of_the_system_are_told_in_gos_words() {
        let text = |number| io_text(&std::io::Error::from_raw_os_error(number));
        assert_eq!(text(2), "no such file or directory");
        assert_eq!(text(20), "not a directory");
        assert_eq!(text(98), "address already in use");
        assert_eq!(io_text(&std::io::Error::other("Own text")), "own text");
    }

    #[test]
    fn arguments_are_taken_apart() {
        let flag = |name, value| Token::Flag { name, value };
        assert_eq!(token("-name"), flag("name", None));
        assert_eq!(token("--name"), flag("name", None));
        assert_eq!(token("--name=a=b"), flag("name", Some("a=b")));
        assert_eq!(token("-name="), flag("name", Some("")));
        assert_eq!(token("name"), Token::Positional("name"));
        assert_eq!(token("-"), Token::Positional("-"));
        assert_eq!(token(""), Token::Positional(""));
        assert_eq!(token("--"), Token::End);
        assert_eq!(token("---name"), Token::Bad);
        assert_eq!(token("-=name"), Token::Bad);
    }
}
