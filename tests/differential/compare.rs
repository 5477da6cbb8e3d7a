//! Where two answers differ (pure).

use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};

use crate::allowed::Answer;

/// The first place where two answers differ, as a path of fields; `None` where they do not.
pub(crate) fn answers(one: &Answer, other: &Answer) -> Option<String> {
    if one.code != other.code {
        return Some("code".to_owned());
    }
    if one.text != other.text {
        return Some("text".to_owned());
    }
    let pairs = one.messages.iter().zip(&other.messages).enumerate();
    for (place, (one, other)) in pairs {
        if let Some(path) = messages(one, other) {
            return Some(format!("message {place}: {path}"));
        }
    }
    (one.messages.len() != other.messages.len()).then(|| "number of messages".to_owned())
}

/// The first field in which two messages of one type differ.
pub(crate) fn messages(one: &DynamicMessage, other: &DynamicMessage) -> Option<String> {
    for field in one.descriptor().fields() {
        if field.supports_presence() && one.has_field(&field) != other.has_field(&field) {
            return Some(field.name().to_owned());
        }
        if let Some(path) = values(&one.get_field(&field), &other.get_field(&field)) {
            return Some(format!("{}{path}", field.name()));
        }
    }
    let unknown = one.unknown_fields().ne(other.unknown_fields());
    unknown.then(|| "unknown fields".to_owned())
}

/// The path within two values to where they differ; empty if it is the values themselves.
fn values(one: &Value, other: &Value) -> Option<String> {
    match (one, other) {
        (Value::Message(one), Value::Message(other)) => messages(one, other).map(|path| format!(".{path}")),
        (Value::List(one), Value::List(other)) => {
            let mut pairs = one.iter().zip(other).enumerate();
            let differs = pairs.find_map(|(place, (one, other))| Some(format!("[{place}]{}", values(one, other)?)));
            differs.or_else(|| (one.len() != other.len()).then(|| " (how many)".to_owned()))
        }
        _ => (one != other).then(String::new),
    }
}

/// What kind of difference a path names: without the places in lists.
pub(crate) fn kind(path: &str) -> String {
    path.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use mainstay_tests::schema;

    use super::*;

    fn range(text: &str) -> DynamicMessage {
        DynamicMessage::parse_text_format(schema::message("etcdserverpb.RangeResponse"), text).unwrap()
    }

    #[test]
    fn the_first_difference_is_named() {
        let cases = [
            ("count: 1", "count: 1", None),
            ("count: 1", "count: 2", Some("count")),
            ("header {}", "", Some("header")),
            ("header { revision: 1 }", "header { revision: 2 }", Some("header.revision")),
            ("kvs { key: 'a' } kvs { key: 'b' }", "kvs { key: 'a' } kvs { lease: 1 }", Some("kvs[1].key")),
            ("kvs {}", "kvs {} kvs {}", Some("kvs (how many)")),
        ];
        for (one, other, path) in cases {
            assert_eq!(messages(&range(one), &range(other)).as_deref(), path, "{one} | {other}");
        }
        assert_eq!(kind("message 12: kvs[3].key"), "message : kvs[].key");
    }

    #[test]
    fn fields_that_nobody_declared_count() {
        let descriptor = schema::message("etcdserverpb.CompactionResponse");
        let plain = DynamicMessage::new(descriptor.clone());
        let more = DynamicMessage::decode(descriptor, &[0x78, 1][..]).unwrap();
        assert_eq!(messages(&plain, &more).as_deref(), Some("unknown fields"));
    }

    #[test]
    fn statuses_are_compared_before_messages() {
        let answer = |code, text: &str, count| Answer {
            code: Some(code),
            text: text.to_owned(),
            messages: vec![range("count: 1"); count],
        };
        assert_eq!(answers(&answer(0, "", 2), &answer(0, "", 2)), None);
        assert_eq!(answers(&answer(0, "", 2), &answer(5, "", 1)).as_deref(), Some("code"));
        assert_eq!(answers(&answer(5, "a", 0), &answer(5, "b", 0)).as_deref(), Some("text"));
        assert_eq!(answers(&answer(0, "", 2), &answer(0, "", 1)).as_deref(), Some("number of messages"));
    }
}
