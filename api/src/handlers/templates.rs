//! What an operation asks for: what its request says, or the template that it names.

use engine::entries::Application;
use engine::reasons::{Confirmation, OperationKind};
use engine::templates::Template;
use engine::terms::{Level, Method};

use crate::problem::ApiError;
use crate::wire::provider::{CreateBroadcast, CreateOperation};

/// What an operation asks for.
pub(super) struct Asks {
    pub(super) kind: OperationKind,
    pub(super) level: Level,
    pub(super) methods: Vec<Method>,
    pub(super) lifetime_s: Option<u32>,
    pub(super) confirmation: Option<Confirmation>,
}

impl Asks {
    /// What `body` asks for at this application.
    pub(super) fn of(body: &CreateOperation, application: &Application) -> Result<Self, ApiError> {
        let Some(name) = &body.template else { return Self::said(body) };
        let said = [
            ("/kind", body.kind.is_some()),
            ("/level", body.level.is_some()),
            ("/methods", !body.methods.is_empty()),
            ("/lifetime_s", body.lifetime_s.is_some()),
            ("/confirmation", body.confirmation.is_some()),
        ];
        if let Some((pointer, _)) = said.into_iter().find(|(_, is_there)| *is_there) {
            return Err(ApiError::invalid(pointer, "must be absent beside a template"));
        }
        let unknown =
            || ApiError::invalid("/template", "must be the name of a template of the application");
        let template = Template::find(application, name).ok_or_else(unknown)?;
        Ok(Self {
            kind: template.kind,
            level: template.level,
            methods: template.methods.clone(),
            lifetime_s: template.lifetime_s,
            confirmation: template.confirmation,
        })
    }

    /// As [`Asks::of`], of each device of a broadcast.
    pub(super) fn of_broadcast(
        body: &CreateBroadcast,
        application: &Application,
    ) -> Result<Self, ApiError> {
        Self::of(&CreateOperation::from_broadcast(body, engine::ids::Id::NIL), application)
    }

    fn said(body: &CreateOperation) -> Result<Self, ApiError> {
        let level = body
            .level
            .ok_or_else(|| ApiError::invalid("/level", "must be there without a template"))?;
        Ok(Self {
            kind: body.kind.unwrap_or(OperationKind::Authentication),
            level,
            methods: body.methods.clone(),
            lifetime_s: body.lifetime_s,
            confirmation: body.confirmation,
        })
    }
}
