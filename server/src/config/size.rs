//! Sizes of memory: plain bytes, or with a suffix.

use super::go::{self, ValueError};

/// Reads a size such as `268435456`, `256Mi` or `1GiB` into bytes.
pub(super) fn parse(text: &str) -> Result<u64, ValueError> {
    let unit = text.strip_suffix('B').filter(|rest| rest.ends_with('i')).unwrap_or(text);
    let shifts = [("Ki", 10), ("Mi", 20), ("Gi", 30)];
    let with_unit = shifts.iter().find_map(|(suffix, shift)| Some((unit.strip_suffix(*suffix)?, *shift)));
    let (digits, shift) = with_unit.unwrap_or((text, 0));
    go::parse_uint(digits, 64)?.checked_mul(1 << shift).ok_or(ValueError::Range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_have_a_suffix() {
        for (text, bytes) in [
            ("0", 0),
            ("268435456", 1 << 28),
            ("0x10", 16),
            ("256Ki", 256 << 10),
            ("256Mi", 256 << 20),
            ("256MiB", 256 << 20),
            ("3Gi", 3 << 30),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "x", "Mi", "-1", "1.5Gi", "1M", "1 Mi", "1iB", "1B", "1mi", "1MiBB"] {
            assert_eq!(parse(text), Err(ValueError::Syntax), "{text}");
        }
        assert_eq!(parse("17179869184Gi"), Err(ValueError::Range));
    }
}
