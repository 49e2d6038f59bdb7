//! The OpenAPI 3.1 document, made from the code that answers.
//!
//! Handlers and wire types describe themselves; error codes come from the
//! problem table. A test asks the running server for everything written here.

use actix_web::HttpResponse;
use actix_web::web::{Json, Path};
use serde::Serialize;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{OpenApi, ToSchema};

use crate::handlers::{
    activations, admin, attestation, audit, broadcasts, device_activation, device_authentication,
    evidence, initiative, operations, pending, registrations, users,
};
use crate::http::health;
use crate::problem::{ApiError, Code, Entry, FieldError, MEDIA_TYPE, Problem};

#[derive(OpenApi)]
#[openapi(
    info(title = "keytrail", description = "Authentication with hardware-protected keys."),
    paths(
        health::healthz, health::readyz, openapi_json, problem_code,
        admin::create_api_key, admin::list_api_keys, admin::api_key, admin::revoke_api_key,
        admin::create_application, admin::list_applications, admin::application,
        admin::change_configuration, admin::status, admin::confirm_clock,
        attestation::take_revocation_list,
        activations::request, activations::request_again, activations::activation,
        activations::cancel,
        registrations::registration, registrations::lock, registrations::unlock,
        registrations::deactivate,
        users::erase,
        operations::create, operations::operation, operations::cancel,
        broadcasts::create, broadcasts::broadcast, broadcasts::cancel,
        evidence::evidence, evidence::jwks,
        device_activation::start, device_activation::finish,
        initiative::begin, pending::list,
        device_authentication::start, device_authentication::finish,
        audit::checkpoint, audit::cosigned_checkpoint, audit::checkpoint_key, audit::tile, audit::receipt, audit::events,
        audit::operation_receipt,
    ),
    components(schemas(Problem<'static>, FieldError, Code)),
    tags(
        (name = "health", description = "Is it alive, does it take requests?"),
        (name = "admin", description = "For administrators: applications, configuration, API keys."),
        (name = "activations", description = "For service providers: keys for a device."),
        (name = "registrations", description = "For service providers: one app on one device."),
        (name = "users", description = "For service providers: erasing a person."),
        (name = "operations", description = "For service providers: one question to one registration."),
        (name = "audit", description = "For auditors: checkpoints, tiles, receipts, events."),
        (name = "device", description = "For devices. What is signed is in docs/protocol.md."),
        (name = "about", description = "What this server offers, and what its errors mean."),
    ),
)]
struct Document;

/// The document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    document.info.license = Some(utoipa::openapi::License::new("Apache-2.0"));
    let components = document.components.get_or_insert_default();
    components.responses.insert("Problem".to_owned(), any_problem().into());
    components.add_security_scheme(
        "basic",
        SecurityScheme::Http(
            Http::builder()
                .scheme(HttpAuthScheme::Basic)
                .description(Some("User: id of the API key. Password: its secret."))
                .build(),
        ),
    );
    components.add_security_scheme(
        "bearer",
        SecurityScheme::Http(
            Http::builder()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some("`kt_<id, 32 hexadecimal digits>_<secret, base64url>`."))
                .build(),
        ),
    );
    let schemes = ["basic", "bearer"];
    document.security = Some(schemes.map(|name| SecurityRequirement::new(name, [""; 0])).to_vec());
    for operation in operations(&mut document) {
        let problem = RefOr::Ref(Ref::from_response_name("Problem"));
        operation.responses.responses.insert("default".to_owned(), problem);
    }
    document
}

fn operations(
    document: &mut utoipa::openapi::OpenApi,
) -> impl Iterator<Item = &mut utoipa::openapi::path::Operation> {
    document.paths.paths.values_mut().flat_map(|item| {
        [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch]
            .into_iter()
            .filter_map(Option::as_mut)
    })
}

fn any_problem() -> Response {
    let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
    ResponseBuilder::new()
        .description("Every failure, as a problem document (RFC 9457).")
        .content(MEDIA_TYPE, Content::new(Some(schema)))
        .build()
}

/// Returns this document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "about", operation_id = "openapi", security(()),
    responses((status = 200, description = "An OpenAPI 3.1 document.", body = Object)),
)]
pub async fn openapi_json() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}

/// What an error code means.
#[derive(Debug, Serialize, ToSchema)]
pub struct CodeMeaning {
    /// Stable name of what went wrong.
    pub code: Code,
    /// HTTP status it comes with.
    pub status: u16,
    /// Short summary.
    pub title: &'static str,
    /// What it means, in one sentence.
    pub meaning: &'static str,
}

/// Explains an error code; the `type` of a problem points here.
#[utoipa::path(
    get, path = "/problems/{code}", tag = "about", operation_id = "problem", security(()),
    params(("code" = String, Path, description = "The `code` of a problem.")),
    responses(
        (status = 200, description = "What the code means.", body = CodeMeaning),
        (status = 404, description = "No such code: `not_found`.",
            body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn problem_code(code: Path<String>) -> Result<HttpResponse, ApiError> {
    let found = Code::ALL.iter().copied().find(|known| known.entry().code == *code);
    let code = found.ok_or(Code::NotFound)?;
    let Entry { status, title, meaning, .. } = code.entry();
    Ok(HttpResponse::Ok().json(CodeMeaning { code, status, title, meaning }))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Calls `look` on every object inside `value`, with its path.
    fn walk(value: &Value, path: &str, look: &mut dyn FnMut(&str, &Value)) {
        look(path, value);
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(key, value)| walk(value, &format!("{path}/{key}"), look));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, path, look)),
            _ => {}
        }
    }

    #[test]
    fn every_member_of_every_schema_is_described() {
        let document = serde_json::to_value(document()).unwrap();
        let schemas = &document["components"]["schemas"];
        let mut seen = 0;
        walk(schemas, "", &mut |path, value| {
            for (name, member) in value["properties"].as_object().into_iter().flatten() {
                seen += 1;
                let described = member.get("description").is_some();
                assert!(described || member.get("$ref").is_some(), "{path}: {name}");
            }
        });
        assert!(seen > 10, "the walk finds members");
    }

    #[test]
    fn every_operation_is_summarised_described_and_may_fail_with_a_problem() {
        let mut document = document();
        let mut seen = 0;
        for operation in operations(&mut document) {
            seen += 1;
            let id = operation.operation_id.clone().unwrap();
            assert!(operation.summary.is_some() && operation.tags.is_some(), "{id}");
            assert!(operation.responses.responses.contains_key("default"), "{id}");
        }
        assert!(seen >= 4);
    }

    #[test]
    fn every_member_that_a_device_sends_or_gets_is_in_the_protocol_document() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");
        let text = std::fs::read_to_string(path).unwrap();
        let endpoints = text.split("\n## ").find(|part| part.starts_with("Device endpoints"));
        let endpoints = endpoints.unwrap();
        let document = serde_json::to_value(document()).unwrap();
        let schema = |name: &str| &document["components"]["schemas"][name]["properties"];
        let mut seen = 0;
        for name in [
            "StartActivation",
            "StartedActivation",
            "PinPolicy",
            "FinishActivation",
            "SoftwareKey",
            "HardwareKey",
            "PreviousSignatures",
            "FinishedActivation",
            "BeginOperation",
            "BegunOperation",
            "ListPending",
            "Pending",
            "PendingOperation",
            "StartAuthentication",
            "Shown",
            "ConfirmationWanted",
            "PostContext",
            "StartedAuthentication",
            "Salted",
            "FinishAuthentication",
            "Signatures",
            "FinishedAuthentication",
        ] {
            for member in schema(name).as_object().unwrap().keys() {
                seen += 1;
                assert!(endpoints.contains(&format!("`{member}`")), "{name}: {member}");
            }
        }
        assert!(seen > 50, "the schemas have members");
    }

    #[test]
    fn the_document_lists_every_code_of_the_table() {
        let document = serde_json::to_value(document()).unwrap();
        let listed = &document["components"]["schemas"]["ErrorCode"];
        assert_eq!(listed["enum"].as_array().unwrap().len(), Code::ALL.len());
        for code in Code::ALL {
            let Entry { code, meaning, .. } = code.entry();
            assert!(listed["enum"].as_array().unwrap().contains(&code.into()));
            assert!(listed["description"].as_str().unwrap().contains(meaning), "{code}");
        }
        assert_eq!(document["openapi"], "3.1.0");
    }
}
