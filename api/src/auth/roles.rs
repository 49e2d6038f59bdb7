//! The roles as extractor types: a handler that forgets the check does not compile.
//!
//! A handler that needs a service provider takes a [`ServiceProvider`]; there is
//! no other way to learn who calls. Roles do not include each other: an
//! administrator cannot approve log-ins, a service provider cannot see the
//! others', an auditor changes nothing.
//!
//! No key, an unknown id, a revoked key and a wrong secret get the same answer
//! after the same work.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use engine::ids::Id;

use super::credential::{Credential, SecretHash, SecretHasher};
use crate::problem::{ApiError, Code};

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Applications, their configuration, API keys.
    Administrator,
    /// Activations and log-ins of its users.
    ServiceProvider,
    /// Reading the log and its proofs.
    Auditor,
}

/// An API key as state has it. A revoked one is not found.
#[derive(Debug, Clone, Copy)]
pub struct KnownKey {
    /// What it may do.
    pub role: Role,
    /// Its secret, hashed.
    pub hash: SecretHash,
}

/// The store cannot say which keys there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("API keys cannot be read: {0}")]
pub struct KeysUnavailable(pub String);

/// What a look-up of an API key returns.
pub type Found<'a> = Pin<Box<dyn Future<Output = Result<Option<KnownKey>, KeysUnavailable>> + 'a>>;

/// Where API keys are looked up.
pub trait ApiKeys: Send + Sync + 'static {
    /// The key of this id, none if there is none or it is revoked.
    ///
    /// # Errors
    ///
    /// [`KeysUnavailable`] if that cannot be told.
    fn find(&self, id: Id) -> Found<'_>;
}

/// Checks who calls. One per server, in the application data.
pub struct Guard {
    keys: Arc<dyn ApiKeys>,
    hasher: SecretHasher,
}

impl Guard {
    /// A guard over these keys.
    #[must_use]
    pub fn new(keys: Arc<dyn ApiKeys>, hasher: SecretHasher) -> Self {
        Self { keys, hasher }
    }

    /// The role of the key in an `Authorization` header, and its id.
    async fn identify(&self, header: Option<&[u8]>) -> Result<(Id, Role), ApiError> {
        let sent = header.ok_or(Code::Unauthenticated)?;
        let sent = Credential::parse(sent).map_err(|_| Code::Unauthenticated)?;
        let unavailable = |error| ApiError::new(Code::Internal).cause(error);
        let known = self.keys.find(sent.id).await.map_err(unavailable)?;
        // An unknown id costs the same comparison as a known one, with a hash of nothing.
        let stored = known.map_or(SecretHash([0; 32]), |key| key.hash);
        let matches = self.hasher.matches(&sent.secret, &stored);
        match known {
            Some(key) if matches => Ok((sent.id, key.role)),
            Some(_) | None => Err(Code::Unauthenticated.into()),
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

/// A type that stands for a role.
pub trait Named: 'static {
    /// The role.
    const ROLE: Role;
}

/// [`Role::Administrator`] as a type.
#[derive(Debug)]
pub enum IsAdministrator {}
/// [`Role::ServiceProvider`] as a type.
#[derive(Debug)]
pub enum IsServiceProvider {}
/// [`Role::Auditor`] as a type.
#[derive(Debug)]
pub enum IsAuditor {}

impl Named for IsAdministrator {
    const ROLE: Role = Role::Administrator;
}
impl Named for IsServiceProvider {
    const ROLE: Role = Role::ServiceProvider;
}
impl Named for IsAuditor {
    const ROLE: Role = Role::Auditor;
}

/// A caller whose API key was checked and has this role.
#[derive(Debug)]
pub struct Caller<R: Named> {
    key_id: Id,
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
}

impl<R: Named> FromRequest for Caller<R> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let guard = request.app_data::<Data<Guard>>().cloned();
        let header = request.headers().get(header::AUTHORIZATION).cloned();
        Box::pin(async move {
            let guard = guard.ok_or_else(|| ApiError::new(Code::Internal).cause("no guard"))?;
            let sent = header.as_ref().map(header::HeaderValue::as_bytes);
            let (key_id, role) = guard.identify(sent).await?;
            if role == R::ROLE {
                Ok(Self { key_id, role: PhantomData })
            } else {
                Err(Code::Forbidden.into())
            }
        })
    }
}
