//! The stored form of users and roles, in the family of `auth`. Users and roles are the bytes that etcd
//! stores for them.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use mainstay_proto::authpb;
use prost::Message;

use super::state::{Auth, AuthChange};
use crate::engine::layout::auth as keys;
use crate::engine::{Batch, Engine, EngineError, Family};

/// Stored bytes that are no user, no role and no setting.
#[derive(Debug, thiserror::Error)]
pub enum AuthRecordError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A key or a value is not what it should be.
    #[error("the stored users and roles are malformed at {0:?}")]
    Malformed(Bytes),
}

impl AuthChange {
    /// Adds the change to what is to be written.
    pub fn write(&self, batch: &mut Batch) {
        let text = |name: &Bytes| String::from_utf8_lossy(name).into_owned();
        match self {
            Self::Enabled(enabled) => batch.put(Family::Auth, keys::ENABLED, vec![u8::from(*enabled)]),
            Self::Revision(revision) => {
                batch.put(Family::Auth, keys::REVISION, Bytes::copy_from_slice(&revision.to_be_bytes()));
            }
            Self::User(user) => batch.put(Family::Auth, keys::user(&text(&user.name)), user.encode_to_vec()),
            Self::UserGone(name) => batch.delete(Family::Auth, keys::user(name)),
            Self::Role(role) => batch.put(Family::Auth, keys::role(&text(&role.name)), role.encode_to_vec()),
            Self::RoleGone(name) => batch.delete(Family::Auth, keys::role(name)),
        }
    }

    fn read(key: &[u8], value: &[u8]) -> Option<Self> {
        if key == keys::ENABLED {
            return match value {
                [0] => Some(Self::Enabled(false)),
                [1] => Some(Self::Enabled(true)),
                _ => None,
            };
        }
        if key == keys::REVISION {
            return Some(Self::Revision(u64::from_be_bytes(value.try_into().ok()?)));
        }
        if let Some(name) = key.strip_prefix(keys::USER) {
            return authpb::User::decode(value).ok().filter(|user| user.name == name).map(Self::User);
        }
        let name = key.strip_prefix(keys::ROLE)?;
        authpb::Role::decode(value).ok().filter(|role| role.name == name).map(Self::Role)
    }
}

impl Auth {
    /// Loads what is stored.
    pub fn open(engine: &dyn Engine) -> Result<Self, AuthRecordError> {
        let mut auth = Self::default();
        let mut malformed = Ok(());
        engine.scan(Family::Auth, Bound::Unbounded, Bound::Unbounded, &mut |key, value| match AuthChange::read(
            key, value,
        ) {
            Some(stored) => {
                auth.load(stored);
                ControlFlow::Continue(())
            }
            None => {
                malformed = Err(AuthRecordError::Malformed(Bytes::copy_from_slice(key)));
                ControlFlow::Break(())
            }
        })?;
        malformed?;
        auth.loaded();
        Ok(auth)
    }
}
