//! etcd's services by their descriptors: every method and message as data.
//!
//! What is generic over all messages (comparing every field, printing, reading from text, making up)
//! is written once against these, where the generated types would need it once for each.

use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, Value};

/// The files of the services that clients see.
const FILES: [&str; 4] = ["etcd/rpc.proto", "etcd/v3lock.proto", "etcd/v3election.proto", "grpc/health.proto"];

fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
        let files = protox::compile(FILES, [folder]).expect("the server is built from these files");
        DescriptorPool::from_file_descriptor_set(files).expect("compiled descriptors fit together")
    })
}

/// Every method of every service, in the order of the files.
pub fn methods() -> impl Iterator<Item = MethodDescriptor> {
    pool().services().flat_map(|service| service.methods().collect::<Vec<_>>())
}

/// A method by its short name, as `KV.Put`.
pub fn method(name: &str) -> Option<MethodDescriptor> {
    methods().find(|method| short_name(method) == name)
}

/// A method's name in scripts and reports: `KV.Put`.
pub fn short_name(method: &MethodDescriptor) -> String {
    format!("{}.{}", method.parent_service().name(), method.name())
}

/// Where a method is called: `/etcdserverpb.KV/Put`.
pub fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// A message type by its full name, which must exist.
pub fn message(name: &str) -> MessageDescriptor {
    pool().get_message_by_name(name).unwrap_or_else(|| panic!("no message is named {name}"))
}

/// A generated message as a dynamic one.
pub fn dynamic(descriptor: MessageDescriptor, message: &impl prost::Message) -> DynamicMessage {
    DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).expect("both are made from one file")
}

/// Calls `visit` for every message within `message`, itself included, parents first.
pub fn for_each_message(message: &mut DynamicMessage, visit: &mut impl FnMut(&mut DynamicMessage)) {
    visit(message);
    for (_, value) in message.fields_mut() {
        match value {
            Value::Message(inner) => for_each_message(inner, visit),
            Value::List(values) => {
                for value in values {
                    let Value::Message(inner) = value else { continue };
                    for_each_message(inner, visit);
                }
            }
            _ => {}
        }
    }
}

/// A field of whole numbers; 0 where it is not set.
pub fn int(message: &DynamicMessage, field: &str) -> i64 {
    message.get_field_by_name(field).and_then(|value| value.as_i64()).unwrap_or(0)
}

/// A field of bytes; empty where it is not set.
pub fn bytes(message: &DynamicMessage, field: &str) -> Bytes {
    message.get_field_by_name(field).and_then(|value| value.as_bytes().cloned()).unwrap_or_default()
}

/// A field that is true or false.
pub fn flag(message: &DynamicMessage, field: &str) -> bool {
    message.get_field_by_name(field).and_then(|value| value.as_bool()).unwrap_or(false)
}

/// A field that is a message, where it is set.
pub fn inner(message: &DynamicMessage, field: &str) -> Option<DynamicMessage> {
    if !message.has_field_by_name(field) {
        return None;
    }
    message.get_field_by_name(field)?.as_message().cloned()
}

/// A field that holds messages.
pub fn list(message: &DynamicMessage, field: &str) -> Vec<DynamicMessage> {
    let value = message.get_field_by_name(field);
    let values = value.as_ref().and_then(|value| value.as_list()).unwrap_or_default();
    values.iter().filter_map(|value| value.as_message().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use prost_reflect::ReflectMessage as _;

    use super::*;

    #[test]
    fn methods_are_found_by_their_short_names() {
        let put = method("KV.Put").unwrap();
        assert_eq!((path(&put).as_str(), put.input().full_name()), ("/etcdserverpb.KV/Put", "etcdserverpb.PutRequest"));
        assert_eq!(method("KV.Push"), None);
        assert!(methods().count() > 40);
        assert!(method("Watch.Watch").unwrap().is_client_streaming());
    }

    #[test]
    fn every_message_within_is_visited() {
        let text = "responses { response_range { kvs { key: 'a' } kvs { key: 'b' } } } header { revision: 7 }";
        let mut message = DynamicMessage::parse_text_format(message("etcdserverpb.TxnResponse"), text).unwrap();
        let mut seen = Vec::new();
        for_each_message(&mut message, &mut |inner| seen.push(inner.descriptor().name().to_owned()));
        seen.sort();
        assert_eq!(seen, ["KeyValue", "KeyValue", "RangeResponse", "ResponseHeader", "ResponseOp", "TxnResponse"]);
    }

    #[test]
    fn fields_are_read_by_name() {
        let text = "key: 'k' limit: 3 keys_only: true";
        let message = DynamicMessage::parse_text_format(message("etcdserverpb.RangeRequest"), text).unwrap();
        assert_eq!((bytes(&message, "key").as_ref(), int(&message, "limit")), (&b"k"[..], 3));
        assert_eq!((int(&message, "revision"), flag(&message, "keys_only")), (0, true));
        assert_eq!((flag(&message, "count_only"), inner(&message, "nothing")), (false, None));
    }
}
