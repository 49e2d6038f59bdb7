//! The closed word lists of the rules, as schemas.

use engine::reasons::{
    ActivationFailure, ActivationState, AuthenticationFailure, CancelReason, LockReason,
    OperationState, PinType, ReasonGiven, RegistrationState, RiskAttribute, Strategy, UserRole,
};
use engine::terms::{Decision, HwKeyClientStatus, HwKeyServerResult, Level, Method};
use utoipa::openapi::schema::{ArrayBuilder, Object, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};

/// A closed list of words.
pub trait Word {
    /// Every word.
    fn all() -> Vec<&'static str>;
}

macro_rules! word {
    ($($name:ident),+ $(,)?) => { $(
        impl Word for $name {
            fn all() -> Vec<&'static str> {
                Self::ALL.iter().map(|word| word.as_str()).collect()
            }
        }
    )+ };
}

word!(
    ActivationFailure,
    ActivationState,
    AuthenticationFailure,
    CancelReason,
    Decision,
    HwKeyClientStatus,
    HwKeyServerResult,
    Level,
    LockReason,
    Method,
    OperationState,
    PinType,
    ReasonGiven,
    RegistrationState,
    RiskAttribute,
    Strategy,
    UserRole,
);

/// The schema of one word of the list.
#[must_use]
pub fn word<W: Word>() -> RefOr<Schema> {
    one::<W>().into()
}

/// The schema of an array of words of the list.
#[must_use]
pub fn words<W: Word>() -> RefOr<Schema> {
    ArrayBuilder::new().items(one::<W>()).into()
}

fn one<W: Word>() -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(W::all())).build()
}

/// The schema of an id.
#[must_use]
pub fn uuid() -> RefOr<Schema> {
    id().into()
}

/// The schema of an array of ids.
#[must_use]
pub fn uuids() -> RefOr<Schema> {
    ArrayBuilder::new().items(id()).into()
}

fn id() -> Object {
    let format = SchemaFormat::Custom("uuid".into());
    ObjectBuilder::new().schema_type(Type::String).format(Some(format)).build()
}
