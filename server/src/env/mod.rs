//! env.

#[cfg(not(madsim))]
pub mod serve;
#[cfg(not(madsim))]
pub mod system;
