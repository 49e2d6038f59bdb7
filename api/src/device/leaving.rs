//! The phone ends its own registration.
//!
//! What stays open after a lost answer is settled by sending the very same request
//! again: it is judged once. The keys stay until the server has said that it is done.

use engine::ids::Id;
use engine::machine::{Entropy, random};
use engine::reasons::OperationKind;
use engine::terms::Level;

use super::authentication::{AuthenticationOptions, authenticate_start, pending, token};
use super::{Client, DeviceError, Phone};
use crate::wire::Octets32;
use crate::wire::device::{
    BeginOperation, BegunOperation, FinishAuthentication, FinishedAuthentication,
};

/// The signed wish to leave.
#[derive(Debug, Clone)]
pub struct Leaving {
    operation: Id,
    body: FinishAuthentication,
}

impl Leaving {
    /// Begins, or goes on with what was begun before, and signs. `options` say how,
    /// its operation aside.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Client`], and as [`super::Answering::answer`].
    pub fn start(
        client: &Client,
        phone: &Phone,
        options: &AuthenticationOptions,
        entropy: &dyn Entropy,
    ) -> Result<Self, DeviceError> {
        let waits = pending(client, phone, 0)?;
        let mut waits = waits.into_iter();
        let begun = waits.find(|operation| operation.kind == OperationKind::Deactivation);
        let operation = match begun {
            Some(begun) => begun.operation_id,
            None => begin(client, phone, options, entropy)?.operation_id,
        };
        let options = AuthenticationOptions { operation: Some(operation), ..options.clone() };
        let answering = authenticate_start(client, phone, &options)?;
        Ok(Self { operation, body: answering.answer(phone, &options, entropy)? })
    }

    /// Sends it. Once more, it gets the same answer.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Client`].
    pub fn finish(&self, client: &Client) -> Result<FinishedAuthentication, DeviceError> {
        let path = format!("/device/v1/operations/{}/finish", self.operation);
        Ok(client.post(&path, &self.body, None)?)
    }

    /// The operation.
    #[must_use]
    pub fn operation(&self) -> Id {
        self.operation
    }
}

fn begin(
    client: &Client,
    phone: &Phone,
    options: &AuthenticationOptions,
    entropy: &dyn Entropy,
) -> Result<BegunOperation, DeviceError> {
    let body = BeginOperation {
        registration_id: phone.registration_id,
        device_token: token(phone, &options.misbehaviour),
        nonce: Octets32(random(entropy)),
        kind: Some(OperationKind::Deactivation),
        level: Level::OneFactor,
        client_version: phone.client_version.to_string(),
    };
    Ok(client.post("/device/v1/operations/begin", &body, None)?)
}
