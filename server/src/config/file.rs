//! The configuration file: YAML, or JSON, which is YAML too.

use std::path::Path;

use serde_yaml_ng::Value;

use super::refusal::Refusal;
use super::settings::Settings;
use super::table::{self, InFile, Kind};

/// Reads a file's text. Keys that no flag has are ignored, and so are keys without a value.
pub(super) fn read(path: &Path, text: &str) -> Result<Settings, Refusal> {
    let refuse = |reason: String| Refusal::File { path: path.to_owned(), reason };
    let document: Value = serde_yaml_ng::from_str(text).map_err(|error| refuse(error.to_string()))?;
    if !matches!(document, Value::Mapping(_) | Value::Null) {
        return Err(refuse("it is not a mapping of keys to values".to_owned()));
    }
    let mut settings = Settings::default();
    for flag in table::all() {
        let key = match flag.file {
            InFile::SameName => flag.name,
            InFile::At(path) => path,
            InFile::Absent => continue,
        };
        let Some(value) = lookup(&document, key, flag.file).map_err(&refuse)? else { continue };
        let text = as_text(flag.kind, value).map_err(|wanted| refuse(format!("{key}: expected {wanted}")))?;
        if text.is_empty() {
            continue;
        }
        settings.set_flag(flag, &text).map_err(|why| refuse(format!("{key}: invalid value {text:?}: {why}")))?;
    }
    Ok(settings)
}

/// Follows a path of keys; a section that is there must be a mapping.
fn lookup<'a>(document: &'a Value, key: &str, place: InFile) -> Result<Option<&'a Value>, String> {
    let mut at = document;
    let steps: Vec<&str> = match place {
        InFile::At(path) => path.split('.').collect(),
        InFile::SameName | InFile::Absent => vec![key],
    };
    for (depth, step) in steps.iter().enumerate() {
        match at {
            Value::Null => return Ok(None),
            Value::Mapping(mapping) => match mapping.get(*step) {
                Some(value) => at = value,
                None => return Ok(None),
            },
            _ => return Err(format!("{}: expected a section", steps[..depth].join("."))),
        }
    }
    Ok(Some(at))
}

/// Writes a value as it would stand on the command line. The error names what the kind wants.
fn as_text(kind: Kind, value: &Value) -> Result<String, &'static str> {
    let wanted = match kind {
        Kind::Bool => "true or false",
        Kind::Uint | Kind::Uint32 => "an unsigned integer",
        Kind::Int => "an integer",
        Kind::Size => "a number of bytes, or a text such as 4Gi",
        Kind::Duration => "an integer of nanoseconds",
        Kind::Text | Kind::Urls | Kind::Origins | Kind::OneOf(_) | Kind::SomeOf(_) | Kind::Gates | Kind::Ignored => {
            "a text"
        }
        Kind::Texts => "a list of texts",
    };
    match (kind, value) {
        (_, Value::Null) => Ok(String::new()),
        (Kind::Bool, Value::Bool(value)) => Ok(value.to_string()),
        (Kind::Uint | Kind::Uint32, Value::Number(number)) if number.is_u64() => Ok(number.to_string()),
        (Kind::Int, Value::Number(number)) if number.is_i64() => Ok(number.to_string()),
        (Kind::Duration, Value::Number(number)) if number.is_i64() => Ok(format!("{number}ns")),
        (Kind::Bool | Kind::Uint | Kind::Uint32 | Kind::Int | Kind::Duration, _) => Err(wanted),
        (_, Value::String(text)) => Ok(text.clone()),
        // etcd takes a bare number for a text: `auto-compaction-retention: 1`.
        (_, Value::Number(number)) => Ok(number.to_string()),
        (_, Value::Bool(value)) => Ok(value.to_string()),
        (Kind::Texts | Kind::Urls | Kind::Origins, Value::Sequence(items)) => {
            let texts = items.iter().map(|item| as_text(Kind::Text, item)).collect::<Result<Vec<_>, _>>();
            texts.map(|texts| texts.join(",")).map_err(|_| wanted)
        }
        (_, Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_)) => Err(wanted),
    }
}
