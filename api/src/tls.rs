//! TLS 1.3 by rustls, from a certificate chain and a key in PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("cannot read {}: {}", .path.display(), .why)]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file has no certificate.
    #[error("{} holds no certificate in PEM form", .0.display())]
    NoCertificate(PathBuf),
    /// The key is not the certificate's, or of an unsupported kind.
    #[error("certificate and private key cannot be used together")]
    Unusable(#[source] rustls::Error),
}

/// The configuration of a TLS server: version 1.3 alone, no client certificates.
///
/// # Errors
///
/// [`TlsError`] says which file to look at.
pub fn load(cert: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(cert, &error))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(cert.to_path_buf()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(TlsError::Unusable)
}

fn unreadable(path: &Path, error: &pem::Error) -> TlsError {
    let why = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it holds nothing of the kind that is needed".to_owned(),
        // The rest describes the text of the file, which may be a private key.
        _ => "it is not a well-formed PEM file".to_owned(),
    };
    TlsError::Unreadable { path: path.to_path_buf(), why }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Cursor;

    use rustls::{PeerIncompatible, ServerConnection};
    use tempfile::TempDir;

    use super::*;

    fn files(cert: &str, key: &str) -> (TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (c, k) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        fs::write(&c, cert).unwrap();
        fs::write(&k, key).unwrap();
        (folder, c, k)
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    /// What a TLS 1.2 client says first: no `supported_versions`.
    fn hello_of_tls_1_2() -> Vec<u8> {
        let mut body = vec![0x03, 0x03];
        body.extend([7; 32]); // random
        body.push(0); // no session
        body.extend([0, 2, 0xc0, 0x2b]); // ECDHE-ECDSA-AES128-GCM-SHA256
        body.extend([1, 0]); // null compression
        let extensions = [
            &[0x00, 0x0a, 0, 4, 0, 2, 0, 0x17][..], // supported_groups: secp256r1
            &[0x00, 0x0d, 0, 4, 0, 2, 4, 3],        // signature_algorithms: ecdsa-p256-sha256
        ]
        .concat();
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut handshake = vec![1, 0];
        handshake.extend((body.len() as u16).to_be_bytes());
        handshake.extend(body);
        let mut record = vec![22, 3, 1];
        record.extend((handshake.len() as u16).to_be_bytes());
        record.extend(handshake);
        record
    }

    #[test]
    fn a_client_of_tls_1_2_is_refused() {
        let (cert, key) = pair();
        let (_folder, cert, key) = files(&cert, &key);
        let config = load(&cert, &key).unwrap();
        let mut server = ServerConnection::new(Arc::new(config)).unwrap();
        server.read_tls(&mut Cursor::new(hello_of_tls_1_2())).unwrap();
        let error = server.process_new_packets().unwrap_err();
        let wanted = PeerIncompatible::SupportedVersionsExtensionRequired;
        assert_eq!(error, rustls::Error::PeerIncompatible(wanted));
    }

    #[test]
    fn what_is_wrong_with_the_files_is_said() {
        let (cert, key) = pair();
        let (_, other_key) = pair();
        let text = |cert: &str, key: &str| {
            let (_folder, cert, key) = files(cert, key);
            load(&cert, &key).unwrap_err().to_string()
        };
        assert!(text("", &key).ends_with("cert.pem holds no certificate in PEM form"));
        assert!(text(&cert, "").contains("key.pem: it holds nothing of the kind"));
        assert!(text(&cert, &cert).contains("key.pem: it holds nothing of the kind"));
        assert!(text("-----BEGIN CERTIFICATE-----\n", &key).contains("not a well-formed PEM"));
        assert!(text(&cert, &other_key).contains("cannot be used together"));
        let missing = load(Path::new("/nowhere/c.pem"), Path::new("/nowhere/k.pem"));
        assert!(missing.unwrap_err().to_string().starts_with("cannot read /nowhere/c.pem: "));
    }
}
