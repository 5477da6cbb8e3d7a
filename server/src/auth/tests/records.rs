use std::sync::Arc;

use super::*;
use crate::auth::AuthRecordError;
use crate::engine::mem::MemHome;
use crate::engine::{Batch, Engine, EngineHome, Family};

fn store(engine: &Arc<dyn Engine>, changes: Changed) {
    let mut batch = Batch::default();
    for change in changes.unwrap() {
        change.write(&mut batch);
    }
    engine.write(batch).unwrap();
}

#[test]
fn what_was_stored_is_found_again() {
    let engine = MemHome::new().open().unwrap();
    let mut auth = Auth::default();
    assert_eq!(Auth::open(&*engine).unwrap(), auth);
    store(&engine, add_user(&mut auth, "root"));
    store(&engine, grant_role(&mut auth, "root", "root"));
    store(&engine, add_user(&mut auth, "a/b"));
    store(&engine, add_user_without_password(&mut auth, "gone"));
    store(&engine, add_role(&mut auth, "r"));
    store(&engine, add_role(&mut auth, "gone"));
    store(&engine, grant(&mut auth, "r", Type::Readwrite, b"a", b"b"));
    store(&engine, grant(&mut auth, "r", Type::Read, b"c", b"\0"));
    store(&engine, grant_role(&mut auth, "a/b", "r"));
    store(&engine, grant_role(&mut auth, "a/b", "gone"));
    store(&engine, revoke(&mut auth, "r", b"a", b"b"));
    store(&engine, auth.enable());
    assert_eq!(Auth::open(&*engine).unwrap(), auth);
    store(&engine, delete_role(&mut auth, "gone"));
    store(&engine, delete_user(&mut auth, "gone"));
    store(&engine, change_password(&mut auth, "a/b", "b3RoZXI="));
    assert_eq!(Auth::open(&*engine).unwrap(), auth);
    store(&engine, auth.disable());
    assert_eq!(Auth::open(&*engine).unwrap(), auth);
}

#[test]
fn the_stored_bytes_are_fixed() {
    let engine = MemHome::new().open().unwrap();
    let mut auth = Auth::default();
    store(&engine, add_role(&mut auth, "r"));
    store(&engine, grant(&mut auth, "r", Type::Write, b"k", b"l"));
    store(&engine, add_user(&mut auth, "u"));
    store(&engine, grant_role(&mut auth, "u", "r"));
    let stored = |key: &[u8]| engine.get(Family::Auth, key).unwrap().unwrap();
    assert_eq!(stored(b"revision").as_ref(), [0, 0, 0, 0, 0, 0, 0, 5]);
    assert_eq!(stored(b"role/r").as_ref(), b"\x0a\x01r\x12\x08\x08\x01\x12\x01k\x1a\x01l");
    assert_eq!(stored(b"user/u").as_ref(), b"\x0a\x01u\x12\x09hash of u\x1a\x01r\x22\x00");
}

#[test]
fn other_bytes_are_damage() {
    for (key, value) in [
        (&b"enabled"[..], &b"\x02"[..]),
        (b"revision", b"1"),
        (b"user/a", b"\x0a\x01b"),
        (b"user/a", b"\xff"),
        (b"role/a", b""),
        (b"what", b""),
    ] {
        let engine = MemHome::new().open().unwrap();
        let mut batch = Batch::default();
        batch.put(Family::Auth, key.to_vec(), value.to_vec());
        engine.write(batch).unwrap();
        let opened = Auth::open(&*engine);
        assert!(matches!(opened, Err(AuthRecordError::Malformed(at)) if at == key), "{key:?}");
    }
}
