//! The endpoints. A handler reads, asks the rules, and words the answer.
//!
//! - [`admin`]: applications, their configuration, API keys.
//! - [`activations`], [`registrations`], [`operations`], [`broadcasts`], [`offline`], [`evidence`], [`users`]:
//!   for service providers.
//! - [`device_hashes`]: for service providers: blocking devices.
//! - [`inactivity`]: for administrators: registrations that nobody uses.
//! - [`attestation`]: revocation lists, for administrators; what *finish* makes of evidence.
//! - [`audit`]: for auditors.
//! - [`device_activation`], [`device_authentication`], [`initiative`],
//!   [`pending`], [`push`]: for devices.
//! - [`naming`]: names of devices, for devices and service providers.

pub mod activations;
pub mod admin;
pub mod attestation;
pub mod audit;
pub mod broadcasts;
pub mod device_activation;
pub mod device_authentication;
pub mod device_hashes;
pub mod evidence;
pub mod inactivity;
pub mod initiative;
mod judging;
pub mod naming;
pub mod offline;
pub mod operations;
pub mod pending;
pub mod push;
mod recovery;
pub mod registrations;
mod templates;
pub mod users;

use actix_web::web::{self, ServiceConfig};
use engine::attestation::revocation::LIST_MAX;

/// Adds every endpoint over the store.
pub fn configure(config: &mut ServiceConfig) {
    admin(config);
    provider(config);
    device(config);
    hashes(config);
    audit(config);
}

fn hashes(config: &mut ServiceConfig) {
    config
        .service(web::resource("/v1/device-hashes/lookup").post(device_hashes::look_up))
        .service(web::resource("/v1/device-hashes/block").post(device_hashes::block))
        .service(web::resource("/v1/device-hashes/unblock").post(device_hashes::unblock))
        .service(
            web::resource("/v1/applications/{id}/blocked-device-hashes")
                .get(device_hashes::list_blocked),
        );
}

fn audit(config: &mut ServiceConfig) {
    config
        .service(web::resource("/audit/v1/checkpoint").get(audit::checkpoint))
        .service(web::resource("/audit/v1/checkpoint/cosigned").get(audit::cosigned_checkpoint))
        .service(web::resource("/audit/v1/checkpoint-key").get(audit::checkpoint_key))
        .service(web::resource("/audit/v1/tile/{tile:.*}").get(audit::tile))
        .service(web::resource("/audit/v1/receipt/{event}").get(audit::receipt))
        .service(web::resource("/audit/v1/events").get(audit::events));
}

fn admin(config: &mut ServiceConfig) {
    let keys = "/admin/v1/api-keys";
    let applications = "/admin/v1/applications";
    config
        .service(web::resource(keys).post(admin::create_api_key).get(admin::list_api_keys))
        .service(web::resource(format!("{keys}/{{id}}")).get(admin::api_key))
        .service(web::resource(format!("{keys}/{{id}}/revoke")).post(admin::revoke_api_key))
        .service(
            web::resource(applications)
                .post(admin::create_application)
                .get(admin::list_applications),
        )
        .service(web::resource(format!("{applications}/{{id}}")).get(admin::application))
        .service(
            web::resource(format!("{applications}/{{id}}/configuration"))
                .patch(admin::change_configuration),
        )
        .service(web::resource(format!("{applications}/{{id}}/inactivity")).get(inactivity::report))
        .service(
            web::resource(format!("{applications}/{{id}}/inactivity/confirm"))
                .post(inactivity::confirm),
        )
        .service(
            web::resource("/admin/v1/attestation/revocation-list")
                // Google's list grows; only an administrator's body is read.
                .app_data(web::PayloadConfig::new(LIST_MAX))
                .post(attestation::take_revocation_list),
        )
        .service(web::resource("/admin/v1/status").get(admin::status))
        .service(web::resource("/admin/v1/clock/confirm").post(admin::confirm_clock));
}

fn provider(config: &mut ServiceConfig) {
    config
        .service(web::resource("/v1/activations").post(activations::request))
        .service(web::resource("/v1/activations/{id}").get(activations::activation))
        .service(web::resource("/v1/activations/{id}/cancel").post(activations::cancel))
        .service(web::resource("/v1/registrations/{id}").get(registrations::registration))
        .service(
            web::resource("/v1/registrations/{id}/activations").post(activations::request_again),
        )
        .service(web::resource("/v1/registrations/{id}/lock").post(registrations::lock))
        .service(web::resource("/v1/registrations/{id}/unlock").post(registrations::unlock))
        .service(web::resource("/v1/registrations/{id}/deactivate").post(registrations::deactivate))
        .service(web::resource("/v1/registrations/{id}/name").post(naming::by_service_provider))
        .service(web::resource("/v1/users/{user_ref}").delete(users::erase))
        .service(web::resource("/v1/users/{user_ref}/registrations").get(users::registrations))
        .service(web::resource("/v1/broadcasts").post(broadcasts::create))
        .service(web::resource("/v1/broadcasts/{id}").get(broadcasts::broadcast))
        .service(web::resource("/v1/broadcasts/{id}/cancel").post(broadcasts::cancel))
        .service(web::resource("/v1/operations").post(operations::create))
        .service(web::resource("/v1/operations/{id}").get(operations::operation))
        .service(web::resource("/v1/operations/{id}/cancel").post(operations::cancel))
        .service(web::resource("/v1/operations/{id}/offline").post(offline::ask))
        .service(web::resource("/v1/operations/{id}/offline/finish").post(offline::finish))
        .service(web::resource("/v1/operations/{id}/evidence").get(evidence::evidence))
        .service(web::resource("/.well-known/jwks.json").get(evidence::jwks))
        .service(web::resource("/v1/operations/{id}/receipt").get(audit::operation_receipt));
}

fn device(config: &mut ServiceConfig) {
    config
        .service(web::resource("/device/v1/activations/start").post(device_activation::start))
        .service(
            web::resource("/device/v1/activations/{id}/finish").post(device_activation::finish),
        )
        .service(web::resource("/device/v1/registrations/name").post(naming::by_device))
        .service(web::resource("/device/v1/push-address").post(push::set_address))
        .service(web::resource("/device/v1/operations/begin").post(initiative::begin))
        .service(web::resource("/device/v1/operations/pending").post(pending::list))
        .service(web::resource("/device/v1/operations/start").post(device_authentication::start))
        .service(
            web::resource("/device/v1/operations/{id}/finish").post(device_authentication::finish),
        );
}
