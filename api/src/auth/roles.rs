//! The roles as extractor types: a handler that forgets the check does not compile.
//!
//! A handler that needs a service provider takes a [`ServiceProvider`]; there is
//! no other way to learn who calls. Roles do not include each other: an
//! administrator cannot approve log-ins, a service provider cannot see the
//! others', an auditor changes nothing.
//!
//! No key, an unknown id, a revoked key and a wrong secret get the same answer
//! after the same work.

use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest};
use engine::entries::ApiKey;
use engine::ids::Id;
use engine::reasons::UserRole;

use super::credential::{Credential, SecretHash};
use crate::app::{App, Slot};
use crate::problem::{ApiError, Code};
use crate::refusals::Refused;

/// A type that stands for a role.
pub trait Named: 'static {
    /// The role.
    const ROLE: UserRole;
}

/// [`UserRole::Administrator`] as a type.
#[derive(Debug)]
pub enum IsAdministrator {}
/// [`UserRole::ServiceProvider`] as a type.
#[derive(Debug)]
pub enum IsServiceProvider {}
/// [`UserRole::Auditor`] as a type.
#[derive(Debug)]
pub enum IsAuditor {}

impl Named for IsAdministrator {
    const ROLE: UserRole = UserRole::Administrator;
}
impl Named for IsServiceProvider {
    const ROLE: UserRole = UserRole::ServiceProvider;
}
impl Named for IsAuditor {
    const ROLE: UserRole = UserRole::Auditor;
}

/// A caller whose API key was checked and has this role.
#[derive(Debug)]
pub struct Caller<R: Named> {
    key_id: Id,
    key: Arc<ApiKey>,
    role: PhantomData<R>,
}

/// A checked administrator.
pub type Administrator = Caller<IsAdministrator>;
/// A checked service provider.
pub type ServiceProvider = Caller<IsServiceProvider>;
/// A checked auditor.
pub type Auditor = Caller<IsAuditor>;

impl<R: Named> Caller<R> {
    /// The id of the API key: who did it, in events.
    #[must_use]
    pub fn key_id(&self) -> Id {
        self.key_id
    }

    fn of_request(request: &HttpRequest) -> Result<Self, ApiError> {
        let app = Slot::app(request)?;
        let sent = request.headers().get(header::AUTHORIZATION);
        let found = sent.and_then(|sent| identify(&app, sent.as_bytes()));
        let Some((key_id, key)) = found else {
            app.refusals.count(Refused::Credentials);
            return Err(Code::Unauthenticated.into());
        };
        if key.role == R::ROLE {
            Ok(Self { key_id, key, role: PhantomData })
        } else {
            Err(Code::Forbidden.into())
        }
    }
}

impl Caller<IsServiceProvider> {
    /// The service provider it acts for.
    #[must_use]
    pub fn service_provider(&self) -> &str {
        &self.key.service_provider
    }
}

/// The API key in an `Authorization` header, if it is one.
fn identify(app: &App, header: &[u8]) -> Option<(Id, Arc<ApiKey>)> {
    let sent = Credential::parse(header).ok()?;
    let known = app.look().api_key(sent.id).filter(|key| !key.revoked);
    // An unknown id costs the same comparison as a known one, with a hash of nothing.
    let stored = known.as_ref().map_or([0; 32], |key| key.secret_hash);
    let matches = app.hasher.matches(&sent.secret, &SecretHash(stored));
    known.filter(|_| matches).map(|key| (sent.id, key))
}

impl<R: Named> FromRequest for Caller<R> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::of_request(request))
    }
}
