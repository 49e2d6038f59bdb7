//! Who calls: API keys, their form, their check, and the roles as types.

pub mod credential;
pub mod first_key;
pub mod roles;
