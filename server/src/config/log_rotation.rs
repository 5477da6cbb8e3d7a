//! `--log-rotation-config-json` → [`LogRotation`], as etcd reads it: with Go's rules for JSON and lumberjack's fields.

use std::time::Duration;

use serde_json::{Map, Value};

use super::fields::LogRotation;
use super::refusal::Refusal;

const MEGABYTE: u64 = 1024 * 1024;
/// What stands for a size of 0.
const MEGABYTES_DEFAULT: u64 = 100;
const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// Reads the fields that there are; the others are 0 or false.
pub(super) fn parse(text: &str) -> Result<LogRotation, Refusal> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| refusal(&format!("improperly formatted log rotation config: {error}")))?;
    let fields = match value {
        Value::Object(fields) => fields,
        // As for each field: it leaves everything as it is.
        Value::Null => Map::new(),
        other => return Err(invalid(&format!("it must be an object (set to {other})"))),
    };
    let (mut max_size, mut max_age, mut max_backups, mut local_time, mut compress) = (0, 0, 0, false, false);
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        // Go takes names in upper case, too, and leaves out what it does not know.
        match name.to_ascii_lowercase().as_str() {
            "maxsize" => max_size = number(name, value)?,
            "maxage" => max_age = number(name, value)?,
            "maxbackups" => max_backups = number(name, value)?,
            "localtime" => local_time = boolean(name, value)?,
            "compress" => compress = boolean(name, value)?,
            _ => {}
        }
    }
    let megabytes = match u64::try_from(max_size) {
        Ok(0) => MEGABYTES_DEFAULT,
        Ok(megabytes) => megabytes,
        // etcd starts and then loses every line.
        Err(_) => return Err(invalid(&format!("maxsize must not be below 0 (set to {max_size})"))),
    };
    // As in etcd, less than none is no limit either.
    let limit = |number: i64| u64::try_from(number).ok().filter(|number| *number > 0);
    Ok(LogRotation {
        max_bytes: megabytes.saturating_mul(MEGABYTE),
        max_age: limit(max_age).map(|days| Duration::from_secs(days.saturating_mul(SECONDS_PER_DAY))),
        max_backups: limit(max_backups).map(|backups| usize::try_from(backups).unwrap_or(usize::MAX)),
        local_time,
        compress,
    })
}

fn number(name: &str, value: &Value) -> Result<i64, Refusal> {
    value.as_i64().ok_or_else(|| invalid(&format!("{name} must be a whole number (set to {value})")))
}

fn boolean(name: &str, value: &Value) -> Result<bool, Refusal> {
    value.as_bool().ok_or_else(|| invalid(&format!("{name} must be true or false (set to {value})")))
}

fn invalid(why: &str) -> Refusal {
    refusal(&format!("invalid log rotation config: {why}"))
}

fn refusal(why: &str) -> Refusal {
    Refusal::Invalid(format!("--log-rotation-config-json: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: LogRotation) {
        assert_eq!(parse(text), Ok(expected), "{text}");
    }

    #[track_caller]
    fn check_refused(text: &str, why: &str) {
        let refusal = parse(text).unwrap_err().to_string();
        assert!(refusal.starts_with(&format!("--log-rotation-config-json: {why}")), "{text}: {refusal}");
    }

    const DEFAULT: LogRotation =
        LogRotation { max_bytes: 100 * MEGABYTE, max_age: None, max_backups: None, local_time: false, compress: false };

    #[test]
    fn fields_are_lumberjacks() {
        check(r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#, DEFAULT);
        check(
            r#"{"maxsize": 1, "maxage": 7, "maxbackups": 3, "localtime": true, "compress": true}"#,
            LogRotation {
                max_bytes: MEGABYTE,
                max_age: Some(Duration::from_secs(7 * 86_400)),
                max_backups: Some(3),
                local_time: true,
                compress: true,
            },
        );
        check("{}", DEFAULT);
        check(r#"{"maxsize": 0, "maxage": -1, "maxbackups": -1}"#, DEFAULT);
    }

    #[test]
    fn json_is_gos() {
        check("null", DEFAULT);
        check(
            r#" {"MaxSize": 2, "filename": "elsewhere", "compress": null} "#,
            LogRotation { max_bytes: 2 * MEGABYTE, ..DEFAULT },
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        check_refused("", "improperly formatted log rotation config: ");
        check_refused(r#"{"maxsize": true"#, "improperly formatted log rotation config: ");
        check_refused("maxsize=1", "improperly formatted log rotation config: ");
        check_refused("[]", "invalid log rotation config: it must be an object (set to [])");
        check_refused(
            r#"{"maxsize": true}"#,
            "invalid log rotation config: maxsize must be a whole number (set to true)",
        );
        check_refused(r#"{"maxage": 1.5}"#, "invalid log rotation config: maxage must be a whole number (set to 1.5)");
        check_refused(r#"{"compress": 1}"#, "invalid log rotation config: compress must be true or false (set to 1)");
        check_refused(r#"{"maxsize": -1}"#, "invalid log rotation config: maxsize must not be below 0 (set to -1)");
    }
}
