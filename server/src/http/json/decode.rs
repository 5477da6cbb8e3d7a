//! From JSON to a message, as Go's protobuf library reads it: fields by either name, unknown ones passed
//! over, numbers also as strings, base64 of both alphabets; and with its words for mistakes (pure).

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind as FieldKind, MessageDescriptor, Value};

use super::tokens::{Kind, Token, Tokens};

/// How deep messages may nest; deeper ones could not be decoded from their bytes again.
const DEPTH_MAX: usize = 100;

/// Reads a message from a value that [`Values`](super::values::Values) cut out.
pub(super) fn message(value: &[u8], descriptor: &MessageDescriptor) -> Result<DynamicMessage, String> {
    let mut tokens = Tokens::of(value);
    let message = read_message(&mut tokens, descriptor, DEPTH_MAX)?;
    let last = tokens.next()?;
    if last.kind == Kind::End { Ok(message) } else { Err(tokens.unexpected(&last)) }
}

fn read_message(
    tokens: &mut Tokens<'_>,
    descriptor: &MessageDescriptor,
    depth_left: usize,
) -> Result<DynamicMessage, String> {
    let Some(depth_left) = depth_left.checked_sub(1) else {
        return Err("proto: exceeded max recursion depth".to_owned());
    };
    let mut message = DynamicMessage::new(descriptor.clone());
    let open = tokens.next()?;
    if open.kind != Kind::ObjectOpen {
        return Err(tokens.unexpected(&open));
    }
    let (mut seen_fields, mut seen_oneofs) = (Vec::new(), Vec::new());
    loop {
        let name = tokens.next()?;
        match name.kind {
            Kind::ObjectClose => return Ok(message),
            Kind::Name => {}
            _ => return Err(tokens.unexpected(&name)),
        }
        let field = descriptor.get_field_by_json_name(&name.text);
        let Some(field) = field.or_else(|| descriptor.get_field_by_name(&name.text)) else {
            pass_over(tokens)?;
            continue;
        };
        if seen_fields.contains(&field.number()) {
            return Err(tokens.mistake(&name, &format!("duplicate field {}", name.raw)));
        }
        seen_fields.push(field.number());
        if tokens.peek()?.kind == Kind::Null {
            tokens.next()?;
            continue;
        }
        if field.is_list() {
            let list = read_list(tokens, &field, depth_left)?;
            message.set_field(&field, Value::List(list));
            continue;
        }
        if let Some(oneof) = field.containing_oneof() {
            if seen_oneofs.contains(&oneof.full_name().to_owned()) {
                let text = format!("error parsing {}, oneof {} is already set", name.raw, oneof.full_name());
                return Err(tokens.mistake(&name, &text));
            }
            seen_oneofs.push(oneof.full_name().to_owned());
        }
        if let Some(value) = read_value(tokens, &field, depth_left)? {
            message.set_field(&field, value);
        }
    }
}

fn read_list(tokens: &mut Tokens<'_>, field: &FieldDescriptor, depth_left: usize) -> Result<Vec<Value>, String> {
    let open = tokens.next()?;
    if open.kind != Kind::ArrayOpen {
        return Err(tokens.unexpected(&open));
    }
    let mut list = Vec::new();
    while tokens.peek()?.kind != Kind::ArrayClose {
        list.extend(read_value(tokens, field, depth_left)?);
    }
    tokens.next()?;
    Ok(list)
}

/// Reads one value of a field; `None` for an enum's name that this release does not know.
fn read_value(tokens: &mut Tokens<'_>, field: &FieldDescriptor, depth_left: usize) -> Result<Option<Value>, String> {
    if let FieldKind::Message(descriptor) = field.kind() {
        return read_message(tokens, &descriptor, depth_left).map(|message| Some(Value::Message(message)));
    }
    let token = tokens.next()?;
    scalar(&field.kind(), &token).ok_or_else(|| {
        let kind = kind_name(&field.kind());
        tokens.mistake(&token, &format!("invalid value for {kind} field {}: {}", field.json_name(), token.raw))
    })
}

/// The value of a token; `None` where the field does not take it, and none inside for an unknown name.
fn scalar(kind: &FieldKind, token: &Token<'_>) -> Option<Option<Value>> {
    Some(Some(match (kind, token.kind) {
        (FieldKind::Bool, Kind::Bool(value)) => Value::Bool(value),
        (FieldKind::Int32, _) => Value::I32(integer(token)?.parse().ok()?),
        (FieldKind::Int64, _) => Value::I64(integer(token)?.parse().ok()?),
        (FieldKind::Uint32, _) => Value::U32(unsigned(token)?.parse().ok()?),
        (FieldKind::Uint64, _) => Value::U64(unsigned(token)?.parse().ok()?),
        (FieldKind::String, Kind::String) => Value::String(token.text.clone()),
        (FieldKind::Bytes, Kind::String) => Value::Bytes(binary(&token.text)?),
        (FieldKind::Enum(descriptor), Kind::String) => return Some(named(descriptor, &token.text)),
        (FieldKind::Enum(_), Kind::Number) => Value::EnumNumber(integer(token)?.parse().ok()?),
        _ => return None,
    }))
}

fn named(descriptor: &EnumDescriptor, name: &str) -> Option<Value> {
    descriptor.get_value_by_name(name).map(|value| Value::EnumNumber(value.number()))
}

/// The digits of a whole number, which may be written as a string, as a fraction or with an exponent.
fn integer(token: &Token<'_>) -> Option<String> {
    let text = match token.kind {
        Kind::Number => token.raw,
        Kind::String => token.text.as_str(),
        _ => return None,
    };
    let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (number, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, fraction)) => (whole, fraction.trim_end_matches('0')),
        None => (number, ""),
    };
    let is_number = !whole.is_empty()
        && (whole == "0" || !whole.starts_with('0'))
        && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if !is_number {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let mut digits = whole.to_owned();
    if let Ok(exponent) = usize::try_from(exponent) {
        // 20 digits are as many as 64 bits can have.
        if fraction.len() > exponent || whole.len() + exponent > 20 {
            return None;
        }
        digits.push_str(fraction);
        digits.extend(std::iter::repeat_n('0', exponent - fraction.len()));
    } else {
        let kept = whole.len().checked_sub(exponent.unsigned_abs() as usize)?;
        if !fraction.is_empty() || whole[kept..].bytes().any(|digit| digit != b'0') {
            return None;
        }
        digits.truncate(kept);
    }
    if digits.is_empty() {
        return Some("0".to_owned());
    }
    Some(if negative { format!("-{digits}") } else { digits })
}

/// The same for kinds without a sign.
fn unsigned(token: &Token<'_>) -> Option<String> {
    integer(token).filter(|digits| !digits.starts_with('-'))
}

fn binary(text: &str) -> Option<Bytes> {
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    // A text whose length fits needs its padding, any other must have none; as in Go.
    let padding =
        if text.len().is_multiple_of(4) { DecodePaddingMode::RequireCanonical } else { DecodePaddingMode::RequireNone };
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(padding).with_decode_allow_trailing_bits(true);
    let text: String = text.chars().filter(|letter| !matches!(letter, '\r' | '\n')).collect();
    GeneralPurpose::new(alphabet, config).decode(text).ok().map(Bytes::from)
}

/// Passes over a value, however deep it is.
fn pass_over(tokens: &mut Tokens<'_>) -> Result<(), String> {
    let mut depth = 0_usize;
    loop {
        match tokens.next()?.kind {
            Kind::ObjectOpen | Kind::ArrayOpen => depth += 1,
            Kind::ObjectClose | Kind::ArrayClose => depth = depth.saturating_sub(1),
            Kind::Name => continue,
            Kind::End => return Err(super::tokens::unexpected_end()),
            _ => {}
        }
        if depth == 0 {
            return Ok(());
        }
    }
}

fn kind_name(kind: &FieldKind) -> &'static str {
    match kind {
        FieldKind::Double => "double",
        FieldKind::Float => "float",
        FieldKind::Int32 => "int32",
        FieldKind::Int64 => "int64",
        FieldKind::Uint32 => "uint32",
        FieldKind::Uint64 => "uint64",
        FieldKind::Sint32 => "sint32",
        FieldKind::Sint64 => "sint64",
        FieldKind::Fixed32 => "fixed32",
        FieldKind::Fixed64 => "fixed64",
        FieldKind::Sfixed32 => "sfixed32",
        FieldKind::Sfixed64 => "sfixed64",
        FieldKind::Bool => "bool",
        FieldKind::String => "string",
        FieldKind::Bytes => "bytes",
        FieldKind::Message(_) => "message",
        FieldKind::Enum(_) => "enum",
    }
}

#[cfg(test)]
mod tests;
