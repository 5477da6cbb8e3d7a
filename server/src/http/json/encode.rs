//! From a message to JSON, as Go's protobuf library writes it: fields by their names in the .proto file,
//! defaults left out, 64-bit numbers as strings (pure).
//!
//! That library puts blanks where no other one would, in some builds, so that nobody relies on its bytes.
//! Here there are none.

use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::Serialize;
use serde_json::Serializer;
use tonic::Status;

/// Writes the message that some bytes encode.
pub(super) fn message(bytes: &[u8], descriptor: &MessageDescriptor) -> Result<String, Status> {
    let unreadable = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
    let mut message = DynamicMessage::new(descriptor.clone());
    message.merge(bytes).map_err(|error| unreadable(&error))?;
    let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(true);
    let mut text = Vec::with_capacity(bytes.len() * 2);
    let written = message.serialize_with_options(&mut Serializer::new(&mut text), &options);
    written.map_err(|error| unreadable(&error))?;
    String::from_utf8(text).map_err(|error| unreadable(&error))
}

/// Writes an error.
pub(super) fn status(status: &Status) -> String {
    #[derive(Serialize)]
    struct Written<'a> {
        #[serde(skip_serializing_if = "is_zero")]
        code: i32,
        #[serde(skip_serializing_if = "str::is_empty")]
        message: &'a str,
    }
    let written = Written { code: status.code().into(), message: status.message() };
    serde_json::to_string(&written).expect("a number and a text can be written as JSON")
}

fn is_zero(code: &i32) -> bool {
    *code == 0
}

/// One line of a stream. Inside of one, Go also escapes what would mean something in HTML.
pub(super) fn line(field: &str, value: &str) -> String {
    let mut line = String::with_capacity(value.len() + field.len() + 6);
    line.push_str("{\"");
    line.push_str(field);
    line.push_str("\":");
    for character in value.chars() {
        match character {
            '<' => line.push_str("\\u003c"),
            '>' => line.push_str("\\u003e"),
            '&' => line.push_str("\\u0026"),
            '\u{2028}' => line.push_str("\\u2028"),
            '\u{2029}' => line.push_str("\\u2029"),
            other => line.push(other),
        }
    }
    line.push_str("}\n");
    line
}

#[cfg(test)]
mod tests {
    use mainstay_proto::etcdserverpb::{DowngradeInfo, RangeResponse, ResponseHeader, StatusResponse, WatchResponse};
    use mainstay_proto::mvccpb::event::EventType;
    use mainstay_proto::mvccpb::{Event, KeyValue};

    use super::super::methods::pool;
    use super::*;

    fn written(name: &str, bytes: &[u8]) -> String {
        message(bytes, &pool().get_message_by_name(name).unwrap()).unwrap()
    }

    #[test]
    fn messages_are_written_as_etcd_writes_them() {
        let header = Some(ResponseHeader { cluster_id: u64::MAX, member_id: 1, revision: -2, raft_term: 0 });
        let kv = KeyValue { key: "foo".into(), value: "b>r".into(), lease: 1, ..KeyValue::default() };
        let range = RangeResponse { header, kvs: vec![kv.clone()], more: true, count: 2 };
        assert_eq!(
            written("etcdserverpb.RangeResponse", &range.encode_to_vec()),
            r#"{"header":{"cluster_id":"18446744073709551615","member_id":"1","revision":"-2"},"kvs":[{"key":"Zm9v","value":"Yj5y","lease":"1"}],"more":true,"count":"2"}"#
        );
        let event = Event { r#type: EventType::Delete.into(), kv: Some(KeyValue::default()), prev_kv: None };
        let watch = WatchResponse { events: vec![event], cancel_reason: "a\"\u{1}".to_owned(), ..Default::default() };
        assert_eq!(
            written("etcdserverpb.WatchResponse", &watch.encode_to_vec()),
            r#"{"cancel_reason":"a\"\u0001","events":[{"type":"DELETE","kv":{}}]}"#
        );
        let status =
            StatusResponse { db_size: 1, downgrade_info: Some(DowngradeInfo::default()), ..Default::default() };
        let text = written("etcdserverpb.StatusResponse", &status.encode_to_vec());
        assert_eq!(text, r#"{"dbSize":"1","downgradeInfo":{}}"#);
    }

    #[test]
    fn errors_and_lines_are_written() {
        let error = status(&Status::not_found("<a> \"b\""));
        assert_eq!(error, r#"{"code":5,"message":"<a> \"b\""}"#);
        assert_eq!(line("error", &error), "{\"error\":{\"code\":5,\"message\":\"\\u003ca\\u003e \\\"b\\\"\"}}\n");
        assert_eq!(status(&Status::unknown("")), r#"{"code":2}"#);
    }
}
