use mainstay_proto::etcdserverpb::compare::TargetUnion;
use mainstay_proto::etcdserverpb::{PutRequest, RangeRequest, TxnRequest};
use prost::Message;

use super::super::methods::pool;
use super::*;

fn read<M: Message + Default>(name: &str, value: &str) -> Result<M, String> {
    let descriptor = pool().get_message_by_name(name).unwrap();
    let message = message(value.as_bytes(), &descriptor)?;
    Ok(M::decode(message.encode_to_vec().as_slice()).unwrap())
}

fn put(value: &str) -> Result<PutRequest, String> {
    read("etcdserverpb.PutRequest", value)
}

#[test]
fn fields_have_two_names_and_values_several_forms() {
    let expected = PutRequest { key: "a".into(), prev_kv: true, lease: 1_000, ..PutRequest::default() };
    for value in [
        r#"{"key":"YQ==","prev_kv":true,"lease":"1000"}"#,
        r#"{"key":"YQ","prevKv":true,"lease":1000}"#,
        r#"{"key":"Y\u0051==","prev_kv":true,"lease":1e3,"value":null}"#,
        r#"{"key":"YQ==","prev_kv":true,"lease":"1.0E+03","unknown":{"a":[{"b":1},[]]}}"#,
        r#"{"key":"YQ==","prev_kv":true,"lease":10000e-1,"none":null}"#,
    ] {
        assert_eq!(put(value).as_ref(), Ok(&expected), "{value}");
    }
    assert_eq!(put(r#"{"key":"-_8"}"#).unwrap().key.as_ref(), b"\xfb\xff");
    assert_eq!(put(r#"{"lease":-0}"#).unwrap().lease, 0);
    assert_eq!(put(r#"{"lease":"-9223372036854775808"}"#).unwrap().lease, i64::MIN);
    assert_eq!(put("{}"), Ok(PutRequest::default()));
}

#[test]
fn enums_are_named_or_numbered() {
    let order = |value: &str| {
        let value = format!(r#"{{"sort_order":{value}}}"#);
        read::<RangeRequest>("etcdserverpb.RangeRequest", &value).map(|request| request.sort_order)
    };
    assert_eq!((order(r#""DESCEND""#), order("2"), order("9"), order(r#""NOPE""#)), (Ok(2), Ok(2), Ok(9), Ok(0)));
    assert_eq!(order("true"), Err("proto: (line 1:15): invalid value for enum field sortOrder: true".to_owned()));
}

#[test]
fn an_empty_alternative_is_kept() {
    let request: TxnRequest =
        read("etcdserverpb.TxnRequest", r#"{"compare":[{"version":"0"},{}],"success":[{"request_txn":{}}]}"#).unwrap();
    assert_eq!(request.compare[0].target_union, Some(TargetUnion::Version(0)));
    assert_eq!(request.compare[1].target_union, None);
    assert!(request.success[0].request.is_some());
}

/// Every text is what etcd 3.7.1 answers, but for a kind of blank that it takes by chance.
#[test]
fn mistakes_are_told_as_etcd_tells_them() {
    for (value, mistake) in [
        ("[]", "proto: syntax error (line 1:1): unexpected token ["),
        ("null", "proto: syntax error (line 1:1): unexpected token null"),
        ("\"a\"", "proto: syntax error (line 1:1): unexpected token \"a\""),
        ("5", "proto: syntax error (line 1:1): unexpected token 5"),
        (r#"{"key":"YQ==","key":"YQ=="}"#, "proto: (line 1:15): duplicate field \"key\""),
        (r#"{"key":"!!"}"#, "proto: (line 1:8): invalid value for bytes field key: \"!!\""),
        (r#"{"key":5}"#, "proto: (line 1:8): invalid value for bytes field key: 5"),
        (r#"{"key":{}}"#, "proto: (line 1:8): invalid value for bytes field key: {"),
        (r#"{"key":"YQ","lease":"abc"}"#, "proto: (line 1:21): invalid value for int64 field lease: \"abc\""),
        (r#"{"key":"YQ","lease":1.5}"#, "proto: (line 1:21): invalid value for int64 field lease: 1.5"),
        (r#"{"prev_kv":"true"}"#, "proto: (line 1:12): invalid value for bool field prevKv: \"true\""),
        ("{\n \"key\":\n  7}", "proto: (line 3:3): invalid value for bytes field key: 7"),
        (r#"{"key":"YQ\u00e9\ud800"}"#, "proto: unexpected EOF"),
        (
            r#"{"lease":9223372036854775808}"#,
            "proto: (line 1:10): invalid value for int64 field lease: 9223372036854775808",
        ),
    ] {
        assert_eq!(put(value), Err(mistake.to_owned()), "{value}");
    }
    let txn = |value: &str| read::<TxnRequest>("etcdserverpb.TxnRequest", value).unwrap_err();
    assert_eq!(txn(r#"{"compare":{}}"#), "proto: syntax error (line 1:12): unexpected token {");
    assert_eq!(txn(r#"{"compare":[1]}"#), "proto: syntax error (line 1:13): unexpected token 1");
    assert_eq!(
        txn(r#"{"compare":[{"key":"YQ==","version":"0","value":"YQ=="}]}"#),
        "proto: (line 1:41): error parsing \"value\", oneof etcdserverpb.Compare.target_union is already set"
    );
    let deep = r#"{"success":[{"request_txn":"#.repeat(60) + "{}" + &"}]}".repeat(60);
    assert_eq!(txn(&deep), "proto: exceeded max recursion depth");
}
