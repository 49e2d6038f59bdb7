//! The endpoints. A handler reads, asks the rules, and words the answer.
//!
//! - [`admin`]: applications, their configuration, API keys.
//! - [`activations`], [`registrations`], [`operations`], [`broadcasts`], [`evidence`], [`users`]:
//!   for service providers.
//! - [`attestation`]: revocation lists, for administrators; what *finish* makes of evidence.
//! - [`audit`]: for auditors.
//! - [`device_activation`], [`device_authentication`], [`initiative`],
//!   [`pending`]: for devices.

pub mod activations;
pub mod admin;
pub mod attestation;
pub mod audit;
pub mod broadcasts;
pub mod device_activation;
pub mod device_authentication;
pub mod evidence;
pub mod initiative;
mod judging;
pub mod operations;
pub mod pending;
pub mod registrations;
mod templates;
pub mod users;

use actix_web::web::{self, ServiceConfig};

/// Adds every endpoint over the store.
pub fn configure(config: &mut ServiceConfig) {
    admin(config);
    provider(config);
    device(config);
    audit(config);
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
        .service(
            web::resource("/admin/v1/attestation/revocation-list")
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
        .service(web::resource("/v1/users/{user_ref}").delete(users::erase))
        .service(web::resource("/v1/broadcasts").post(broadcasts::create))
        .service(web::resource("/v1/broadcasts/{id}").get(broadcasts::broadcast))
        .service(web::resource("/v1/broadcasts/{id}/cancel").post(broadcasts::cancel))
        .service(web::resource("/v1/operations").post(operations::create))
        .service(web::resource("/v1/operations/{id}").get(operations::operation))
        .service(web::resource("/v1/operations/{id}/cancel").post(operations::cancel))
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
        .service(web::resource("/device/v1/operations/begin").post(initiative::begin))
        .service(web::resource("/device/v1/operations/pending").post(pending::list))
        .service(web::resource("/device/v1/operations/start").post(device_authentication::start))
        .service(
            web::resource("/device/v1/operations/{id}/finish").post(device_authentication::finish),
        );
}
