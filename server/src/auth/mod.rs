//! Users, roles and permissions, and the tokens by which clients show who they are.
//!
//! Owns [`Auth`], what is replicated of it: pure data that `apply` alone changes, for each command alike on
//! every member, and that `api` looks at through an [`AuthView`]. Beside it stands what each member keeps for
//! itself and no command sees: [`SimpleTokens`] with the times at which they end, the keys of [`Jwt`], and
//! [`Passwords`], which hashes off the runtime's threads.
//!
//! | file | what |
//! |---|---|
//! | `state` | users, roles, whether all that counts; the rules of changing them (pure) |
//! | `decision` | who may do what (pure) |
//! | `permissions` | the union of a user's intervals (pure) |
//! | `record` | what is stored (pure) |
//! | `view` | the handle for readers |
//! | `options`, `jwt`, `keys`, `der` | `--auth-token` and signed tokens |
//! | `simple_tokens` | random tokens, in memory |
//! | `passwords` | bcrypt |
//!
//! - **Invariant:** no request is allowed that the granted intervals do not cover
//!   (`tests::decisions::no_request_passes_that_the_model_denies`).
//! - **Invariant:** a password is in no command, no record and no log line; its hash is
//!   (`api/auth` hashes before it proposes).

mod decision;
mod der;
mod jwt;
mod keys;
mod options;
mod passwords;
mod permissions;
mod provider;
mod record;
mod simple_tokens;
mod state;
mod view;

pub use decision::Right;
pub use jwt::Jwt;
pub use options::{JwtOptions, SignMethod, TokenError, TokenOptions};
pub use passwords::{PasswordError, Passwords};
pub use provider::TokenProvider;
pub use record::AuthRecordError;
pub use simple_tokens::{SimpleTokens, TokenChange, token_index};
pub use state::{Auth, AuthChange, ROOT, encoded_hash};
pub use view::AuthView;

#[cfg(test)]
mod tests;
