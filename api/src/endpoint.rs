//! An HTTP endpoint that this server calls: where bytes are posted to.
//!
//! Redirections are not followed, no proxy of the environment has a say, and
//! behind https only the authorities that the operator names are trusted.

use std::path::Path;
use std::time::Duration;

use storage::disk::{Disk as _, RealDisk};
use ureq::http::{Request, header};
use ureq::{Agent, http};
use zeroize::Zeroizing;

use crate::device::agent;

/// Most bytes of an answer that are read.
pub(crate) const ANSWER_MAX: u64 = 64 * 1024;
/// Longest token file, in bytes.
const TOKEN_MAX: u64 = 4_096;
/// What calls.
const PRODUCT: &str = concat!("keytrail/", env!("CARGO_PKG_VERSION"));

/// Where bytes are posted to.
pub(crate) struct Endpoint {
    agent: Agent,
    url: String,
    token: Option<Zeroizing<String>>,
}

/// What it answered.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) media_type: String,
    pub(crate) body: String,
}

impl Endpoint {
    /// The endpoint at `url`, which is given `whole` for each answer. `ca` is a PEM
    /// file with the authorities to trust, `token` a file with a bearer token.
    pub(crate) fn new(
        url: &str,
        ca: Option<&Path>,
        token: Option<&Path>,
        whole: Duration,
    ) -> Result<Self, String> {
        let agent = agent(url, ca, PRODUCT, whole).map_err(|error| error.to_string())?;
        let token = token.map(read_token).transpose()?;
        Ok(Self { agent, url: url.to_owned(), token })
    }

    /// Its URL. The path may be a secret.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Posts a body of this media type, with these headers beside it.
    ///
    /// # Errors
    ///
    /// Why there is no answer that can be read.
    pub(crate) fn post(
        &self,
        media_type: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Reply, String> {
        let failed = |error: ureq::Error| format!("no answer: {error}");
        let mut request = Request::post(&self.url).header(header::CONTENT_TYPE, media_type);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            let bearer = Zeroizing::new(format!("Bearer {}", **token));
            request = request.header(header::AUTHORIZATION, &**bearer);
        }
        let request = request.body(body).map_err(ureq::Error::from).map_err(failed)?;
        let mut response = self.agent.run(request).map_err(failed)?;
        let media_type = response.headers().get(header::CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = media_type.to_owned();
        let body = response.body_mut().with_config().limit(ANSWER_MAX).read_to_vec();
        let body = String::from_utf8(body.map_err(failed)?);
        let body = body.map_err(|_| "its answer is not UTF-8".to_owned())?;
        Ok(Reply { status: response.status().as_u16(), media_type, body })
    }
}

/// Scheme and host of a URL: the rest may be a secret.
pub(crate) fn host(url: &str) -> String {
    let uri: Option<http::Uri> = url.parse().ok();
    uri.and_then(|uri| Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?)))
        .unwrap_or_default()
}

fn read_token(path: &Path) -> Result<Zeroizing<String>, String> {
    let failed = |why: &str| format!("{}: {why}", path.display());
    let bytes = RealDisk.read(path, TOKEN_MAX).map_err(|error| failed(&error.to_string()))?;
    let text = Zeroizing::new(bytes);
    let text = std::str::from_utf8(&text).map(str::trim).unwrap_or_default();
    let sane = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if sane { Ok(Zeroizing::new(text.to_owned())) } else { Err(failed("not a bearer token")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_shown_and_a_path_is_not() {
        assert_eq!(host("https://siem.example:8443/hook/s3cret"), "https://siem.example:8443");
    }
}
