//! Messages of any type with hostile values.

use bytes::Bytes;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use mainstay_tests::dice::Dice;

/// Numbers at the edges of their types and of what the server counts with.
const NUMBERS: [i64; 18] = [
    0,
    1,
    2,
    -1,
    3,
    7,
    127,
    128,
    129,
    255,
    1 << 31,
    (1 << 31) - 1,
    1 << 32,
    1 << 62,
    i64::MAX,
    i64::MIN,
    i64::MIN + 1,
    9_000_000_001,
];
/// Bytes and texts. None is a URL that a member could have: a member that is added takes the majority away.
/// None is root's name: who turned authentication on would turn everyone else away.
const TEXTS: [&str; 16] = [
    "",
    "a",
    "b",
    "\0",
    "\u{ff}",
    "\n",
    "%s%n",
    "../..",
    "3.6",
    "3.6.0",
    "http://",
    "http://[::1",
    "unix://x",
    "u",
    "{}",
    "🦀",
];
/// How deep messages lie in each other, mostly.
const DEPTH: usize = 4;
/// How deep at most. Protobuf's own bound is 100.
const DEPTH_MAX: usize = 140;

/// Makes a message of a type.
pub(crate) fn message(dice: &mut Dice, descriptor: MessageDescriptor) -> DynamicMessage {
    if dice.chance(2) {
        return nested(dice, descriptor, DEPTH_MAX);
    }
    any(dice, descriptor, DEPTH)
}

fn any(dice: &mut Dice, descriptor: MessageDescriptor, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        if dice.chance(55) {
            set(dice, &mut message, &field, depth);
        }
    }
    message
}

/// A message within itself as often as it goes, as transactions can be.
fn nested(dice: &mut Dice, descriptor: MessageDescriptor, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    let deeper = descriptor.fields().filter(|field| field.kind().as_message().is_some()).collect::<Vec<_>>();
    if depth == 0 || deeper.is_empty() {
        return any(dice, descriptor, 1);
    }
    // The one that leads furthest: a transaction's operations, and of those the transaction.
    let leads_on = |field: &&FieldDescriptor| {
        field.kind().as_message().is_some_and(|inner| inner.fields().any(|field| field.kind().as_message().is_some()))
    };
    let further = deeper.iter().filter(leads_on).cloned().collect::<Vec<_>>();
    let fields = if further.is_empty() { &deeper } else { &further };
    let field = fields.iter().find(|field| field.name() == "request_txn").unwrap_or_else(|| dice.pick(fields));
    if let Kind::Message(inner) = field.kind() {
        let inner = Value::Message(nested(dice, inner, depth - 1));
        message.set_field(field, if field.is_list() { Value::List(vec![inner]) } else { inner });
    }
    message
}

fn set(dice: &mut Dice, message: &mut DynamicMessage, field: &FieldDescriptor, depth: usize) {
    if depth == 0 && field.kind().as_message().is_some() {
        return;
    }
    if !field.is_list() {
        message.set_field(field, value(dice, &field.kind(), depth));
        return;
    }
    // Some lists are longer than any bound on what a transaction may hold.
    let count = *dice.pick(&[0, 1, 1, 2, 3, if depth > 3 { 150 } else { 4 }]);
    message.set_field(field, Value::List((0..count).map(|_| value(dice, &field.kind(), depth)).collect()));
}

fn value(dice: &mut Dice, kind: &Kind, depth: usize) -> Value {
    let number = if dice.chance(90) { *dice.pick(&NUMBERS) } else { dice.number().cast_signed() };
    // Where it does not fit, other bits of it are as good.
    let narrow = u32::try_from(number & 0xffff_ffff).unwrap_or_default();
    match kind {
        Kind::Bool => Value::Bool(dice.chance(50)),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(narrow.cast_signed()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(narrow),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number.cast_unsigned()),
        Kind::Float => Value::F32(f32::NAN),
        Kind::Double => Value::F64(f64::NAN),
        Kind::Enum(_) if dice.chance(85) => Value::EnumNumber(i32::try_from(dice.below(5)).unwrap_or_default()),
        Kind::Enum(_) => Value::EnumNumber(narrow.cast_signed()),
        Kind::String => Value::String(text(dice)),
        Kind::Bytes if dice.chance(5) => {
            // Not often: what is put stays for a while.
            let length = *dice.pick(&[1_000, 70_000, 1_600_000, 2_200_000]);
            Value::Bytes(Bytes::from(vec![b'x'; if dice.chance(95) { 300 } else { length }]))
        }
        Kind::Bytes => Value::Bytes(text(dice).into_bytes().into()),
        Kind::Message(descriptor) => Value::Message(any(dice, descriptor.clone(), depth.saturating_sub(1))),
    }
}

fn text(dice: &mut Dice) -> String {
    let text = *dice.pick(&TEXTS);
    if dice.chance(3) { text.repeat(5_000) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use mainstay_tests::schema;
    use prost::Message as _;

    use super::*;

    #[test]
    fn every_request_type_can_be_made() {
        let mut dice = Dice::new(1);
        for method in schema::methods() {
            for _ in 0..50 {
                let made = message(&mut dice, method.input()).encode_to_vec();
                assert!(made.len() < 100 << 20, "{}: {} bytes", method.full_name(), made.len());
            }
        }
    }

    #[test]
    fn transactions_lie_deep_in_each_other() {
        let made = nested(&mut Dice::new(1), schema::message("etcdserverpb.TxnRequest"), DEPTH_MAX);
        let text = made.to_text_format();
        assert!(text.matches("request_txn").count() >= DEPTH_MAX / 2 - 1, "{}", text.matches("request_txn").count());
    }
}
