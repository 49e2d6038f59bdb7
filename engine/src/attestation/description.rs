//! The key description: what Android's secure hardware says of a key.
//!
//! An extension of the leaf (OID 1.3.6.1.4.1.11129.2.1.17), in ASN.1; its
//! schema is on source.android.com, "Key and ID attestation", and has grown
//! from Keymaster 2 (version 1) to KeyMint 4 and beyond (400, 500). It is two
//! lists of authorisations, each a tag and a value: what the secure hardware
//! enforces and what Android alone enforces.
//!
//! Read as phones write it, not as DER would have it: tags in any order, tags
//! that are not known, BOOLEAN true as any byte but zero. What an attacker
//! could gain from is not put up with: a tag that stands twice in one list, a
//! value that a rule rests on and that cannot be read, bytes after the end.

use std::collections::BTreeMap;

use x509_parser::asn1_rs::{Any, Class, FromDer, Oid, Tag, oid};

use crate::attestation::{BootState, Findings, SecurityLevel};

/// The extension.
pub const KEY_DESCRIPTION: Oid<'static> = oid!(1.3.6.1.4.1.11129.2.1.17);

/// Most characters of a value that are shown.
const SHOWN_MAX: usize = 1_024;

/// The extension is not of its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// How a tag's value is written.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Flag,
    Number,
    Numbers,
    Octets,
    Text,
    RootOfTrust,
    ApplicationId,
}

/// A tag that is known: number, name, how it is written, whether it can name a device.
struct Known(u32, &'static str, Kind, bool);

const PURPOSE: u32 = 1;
const EXPORTABLE: u32 = 602;
const ORIGIN: u32 = 702;
const ROOT_OF_TRUST: u32 = 704;
const OS_PATCH_LEVEL: u32 = 706;
const APPLICATION_ID: u32 = 709;

/// Tags in the order of their numbers.
const TAGS: &[Known] = &[
    Known(PURPOSE, "purposes", Kind::Numbers, false),
    Known(2, "algorithm", Kind::Number, false),
    Known(3, "key_size", Kind::Number, false),
    Known(4, "block_modes", Kind::Numbers, false),
    Known(5, "digests", Kind::Numbers, false),
    Known(6, "paddings", Kind::Numbers, false),
    Known(7, "caller_nonce", Kind::Flag, false),
    Known(8, "min_mac_length", Kind::Number, false),
    Known(10, "ec_curve", Kind::Number, false),
    Known(200, "rsa_public_exponent", Kind::Number, false),
    Known(203, "rsa_oaep_mgf_digests", Kind::Numbers, false),
    Known(303, "rollback_resistance", Kind::Flag, false),
    Known(305, "early_boot_only", Kind::Flag, false),
    Known(400, "active_date_time", Kind::Number, false),
    Known(401, "origination_expire_date_time", Kind::Number, false),
    Known(402, "usage_expire_date_time", Kind::Number, false),
    Known(405, "usage_count_limit", Kind::Number, false),
    Known(503, "no_auth_required", Kind::Flag, false),
    Known(504, "user_auth_type", Kind::Number, false),
    Known(505, "auth_timeout", Kind::Number, false),
    Known(506, "allow_while_on_body", Kind::Flag, false),
    Known(507, "trusted_user_presence_required", Kind::Flag, false),
    Known(508, "trusted_confirmation_required", Kind::Flag, false),
    Known(509, "unlocked_device_required", Kind::Flag, false),
    Known(600, "all_applications", Kind::Flag, false),
    Known(601, "application_id", Kind::Octets, true),
    Known(EXPORTABLE, "exportable", Kind::Flag, false),
    Known(701, "creation_date_time", Kind::Number, false),
    Known(ORIGIN, "origin", Kind::Number, false),
    Known(703, "rollback_resistant", Kind::Flag, false),
    Known(ROOT_OF_TRUST, "root_of_trust", Kind::RootOfTrust, false),
    Known(705, "os_version", Kind::Number, false),
    Known(OS_PATCH_LEVEL, "os_patch_level", Kind::Number, false),
    Known(APPLICATION_ID, "attestation_application_id", Kind::ApplicationId, false),
    Known(710, "attestation_id_brand", Kind::Text, true),
    Known(711, "attestation_id_device", Kind::Text, true),
    Known(712, "attestation_id_product", Kind::Text, true),
    Known(713, "attestation_id_serial", Kind::Text, true),
    Known(714, "attestation_id_imei", Kind::Text, true),
    Known(715, "attestation_id_meid", Kind::Text, true),
    Known(716, "attestation_id_manufacturer", Kind::Text, true),
    Known(717, "attestation_id_model", Kind::Text, true),
    Known(718, "vendor_patch_level", Kind::Number, false),
    Known(719, "boot_patch_level", Kind::Number, false),
    Known(720, "device_unique_attestation", Kind::Flag, false),
    Known(723, "attestation_id_second_imei", Kind::Text, true),
    Known(724, "module_hash", Kind::Octets, false),
];

/// A key description.
#[derive(Debug)]
pub struct KeyDescription<'a> {
    /// Version of the schema.
    pub attestation_version: u64,
    /// Where the attestation was made.
    pub attestation_level: SecurityLevel,
    /// Version of Keymaster or KeyMint.
    pub keymint_version: u64,
    /// Where the key lives.
    pub keymint_level: SecurityLevel,
    /// What was given to `setAttestationChallenge`.
    pub challenge: &'a [u8],
    /// A device's identifier for system apps; usually empty.
    pub unique_id: &'a [u8],
    /// What Android enforces.
    pub software: Authorizations<'a>,
    /// What the secure hardware enforces.
    pub hardware: Authorizations<'a>,
}

impl<'a> KeyDescription<'a> {
    /// Reads the extension's value.
    ///
    /// # Errors
    ///
    /// [`Unreadable`]; see the module for what is put up with.
    pub fn read(value: &'a [u8]) -> Result<Self, Unreadable> {
        let mut fields = Values(only(value, Tag::Sequence)?);
        let description = Self {
            attestation_version: number(&fields.next()?)?,
            attestation_level: level(&fields.next()?)?,
            keymint_version: number(&fields.next()?)?,
            keymint_level: level(&fields.next()?)?,
            challenge: octets(&fields.next()?)?,
            unique_id: octets(&fields.next()?)?,
            software: Authorizations::read(&fields.next()?)?,
            hardware: Authorizations::read(&fields.next()?)?,
        };
        // A later schema may add fields behind these; none of ours rests on them.
        Ok(description)
    }

    /// Where both the key and its attestation are at least: the weaker of the two.
    #[must_use]
    pub fn level(&self) -> SecurityLevel {
        self.attestation_level.min(self.keymint_level)
    }

    /// Notes every value.
    pub fn show(&self, findings: &mut Findings) {
        let name = |field: &str| format!("key_description.{field}");
        findings.field(name("attestation_version"), self.attestation_version.to_string());
        findings.field(name("attestation_security_level"), self.attestation_level.as_str());
        findings.field(name("keymint_version"), self.keymint_version.to_string());
        findings.field(name("keymint_security_level"), self.keymint_level.as_str());
        findings.field(name("attestation_challenge"), hex(self.challenge));
        findings.private_field(name("unique_id"), hex(self.unique_id));
        self.software.show(&name("software_enforced"), findings);
        self.hardware.show(&name("hardware_enforced"), findings);
    }
}

/// A list of authorisations.
#[derive(Debug)]
pub struct Authorizations<'a> {
    entries: BTreeMap<u32, Any<'a>>,
    ordered: bool,
}

impl<'a> Authorizations<'a> {
    fn read(list: &Any<'a>) -> Result<Self, Unreadable> {
        let mut values = Values(content(list, Tag::Sequence)?);
        let (mut entries, mut ordered, mut last) = (BTreeMap::new(), true, 0);
        while !values.0.is_empty() {
            let tagged = values.next()?;
            if tagged.class() != Class::ContextSpecific {
                return Err(Unreadable);
            }
            let tag = tagged.tag().0;
            ordered &= tag > last;
            last = tag;
            let mut inside = Values(tagged.data);
            let value = inside.next()?;
            if !inside.0.is_empty() || entries.insert(tag, value).is_some() {
                return Err(Unreadable);
            }
        }
        Ok(Self { entries, ordered })
    }

    /// What the key may do; none if the list does not say.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] if it says so in a form that is not known; likewise below.
    pub fn purposes(&self) -> Result<Option<Vec<u64>>, Unreadable> {
        self.entries.get(&PURPOSE).map(numbers).transpose()
    }

    /// How the key came to be.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn origin(&self) -> Result<Option<u64>, Unreadable> {
        self.entries.get(&ORIGIN).map(number).transpose()
    }

    /// Whether the list says that the key can be exported, in whatever form.
    #[must_use]
    pub fn exportable(&self) -> bool {
        self.entries.contains_key(&EXPORTABLE)
    }

    /// How the system booted.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn root_of_trust(&self) -> Result<Option<RootOfTrust<'a>>, Unreadable> {
        self.entries.get(&ROOT_OF_TRUST).map(RootOfTrust::read).transpose()
    }

    /// Patch level of the system, YYYYMM. Devices that write a day too are cut to the month.
    ///
    /// # Errors
    ///
    /// [`Unreadable`], also for a number that is no month.
    pub fn os_patch_level(&self) -> Result<Option<u32>, Unreadable> {
        let Some(value) = self.entries.get(&OS_PATCH_LEVEL) else { return Ok(None) };
        let level = number(value)?;
        let month = if level > 999_999 { level / 100 } else { level };
        u32::try_from(month).map(Some).map_err(|_| Unreadable)
    }

    /// The packages that may use the key, and who signed them.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn application_id(&self) -> Result<Option<ApplicationId<'a>>, Unreadable> {
        self.entries.get(&APPLICATION_ID).map(ApplicationId::read).transpose()
    }

    fn show(&self, list: &str, findings: &mut Findings) {
        if !self.ordered {
            findings.field(format!("{list}.tags_ordered"), "false");
        }
        for (tag, value) in &self.entries {
            match TAGS.iter().find(|known| known.0 == *tag) {
                Some(Known(_, name, kind, private)) => {
                    show(&format!("{list}.{name}"), value, *kind, *private, findings);
                }
                // Nobody knows what it says, so it may name a device.
                None => findings.private_field(format!("{list}.tag_{tag}"), hex(value.data)),
            }
        }
    }
}

/// How the system booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootOfTrust<'a> {
    /// The key that the system is signed with.
    pub verified_boot_key: &'a [u8],
    /// Whether the boot loader is locked.
    pub device_locked: bool,
    /// What the boot loader found.
    pub state: BootState,
    /// Hash of what booted; since version 3.
    pub verified_boot_hash: Option<&'a [u8]>,
}

impl<'a> RootOfTrust<'a> {
    fn read(value: &Any<'a>) -> Result<Self, Unreadable> {
        let mut fields = Values(content(value, Tag::Sequence)?);
        Ok(Self {
            verified_boot_key: octets(&fields.next()?)?,
            device_locked: boolean(&fields.next()?)?,
            state: match content(&fields.next()?, Tag::Enumerated)? {
                [0] => BootState::Verified,
                [1] => BootState::SelfSigned,
                [2] => BootState::Unverified,
                [3] => BootState::Failed,
                _ => return Err(Unreadable),
            },
            verified_boot_hash: if fields.0.is_empty() {
                None
            } else {
                Some(octets(&fields.next()?)?)
            },
        })
    }
}

/// The packages that may use a key: one, or several of one user id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationId<'a> {
    /// Name and version of each package.
    pub packages: Vec<(&'a [u8], u64)>,
    /// SHA-256 of each certificate that they are signed with.
    pub signers: Vec<&'a [u8]>,
}

impl<'a> ApplicationId<'a> {
    fn read(value: &Any<'a>) -> Result<Self, Unreadable> {
        let mut parts = Values(only(octets(value)?, Tag::Sequence)?);
        let mut packages = Vec::new();
        let mut infos = Values(content(&parts.next()?, Tag::Set)?);
        while !infos.0.is_empty() {
            let mut info = Values(content(&infos.next()?, Tag::Sequence)?);
            packages.push((octets(&info.next()?)?, number(&info.next()?)?));
        }
        let mut signers = Vec::new();
        let mut digests = Values(content(&parts.next()?, Tag::Set)?);
        while !digests.0.is_empty() {
            signers.push(octets(&digests.next()?)?);
        }
        Ok(Self { packages, signers })
    }
}

/// Notes one value. One that is not of its kind is shown in hex.
fn show(name: &str, value: &Any, kind: Kind, private: bool, findings: &mut Findings) {
    let text = match kind {
        Kind::RootOfTrust => match RootOfTrust::read(value) {
            Ok(root) => return show_root_of_trust(name, &root, findings),
            Err(Unreadable) => Err(Unreadable),
        },
        Kind::ApplicationId => match ApplicationId::read(value) {
            Ok(id) => return show_application_id(name, &id, findings),
            Err(Unreadable) => Err(Unreadable),
        },
        Kind::Flag => Ok("true".to_owned()),
        Kind::Number => number(value).map(|number| number.to_string()),
        Kind::Numbers => numbers(value)
            .map(|numbers| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        Kind::Octets => octets(value).map(hex),
        Kind::Text => octets(value).map(text),
    };
    // What a known tag holds in a form that is not known may name a device.
    let private = private || text.is_err();
    let text = text.unwrap_or_else(|_| format!("unreadable: {}", hex(value.data)));
    if private { findings.private_field(name, text) } else { findings.field(name, text) }
}

fn show_root_of_trust(name: &str, root: &RootOfTrust, findings: &mut Findings) {
    findings.field(format!("{name}.verified_boot_key"), hex(root.verified_boot_key));
    findings.field(format!("{name}.device_locked"), root.device_locked.to_string());
    findings.field(format!("{name}.verified_boot_state"), root.state.as_str());
    if let Some(hash) = root.verified_boot_hash {
        findings.field(format!("{name}.verified_boot_hash"), hex(hash));
    }
}

fn show_application_id(name: &str, id: &ApplicationId, findings: &mut Findings) {
    for (index, (package, version)) in id.packages.iter().enumerate() {
        findings.field(format!("{name}.packages[{index}].name"), text(package));
        findings.field(format!("{name}.packages[{index}].version"), version.to_string());
    }
    for (index, signer) in id.signers.iter().enumerate() {
        findings.field(format!("{name}.signatures[{index}]"), hex(signer));
    }
}

/// Values that stand one after the other.
struct Values<'a>(&'a [u8]);

impl<'a> Values<'a> {
    fn next(&mut self) -> Result<Any<'a>, Unreadable> {
        let (rest, value) = Any::from_der(self.0).map_err(|_| Unreadable)?;
        self.0 = rest;
        Ok(value)
    }
}

/// The content of the one value that `bytes` are.
fn only(bytes: &[u8], tag: Tag) -> Result<&[u8], Unreadable> {
    let mut values = Values(bytes);
    let value = values.next()?;
    if values.0.is_empty() { content(&value, tag) } else { Err(Unreadable) }
}

/// The content of a value of a universal type.
fn content<'a>(value: &Any<'a>, tag: Tag) -> Result<&'a [u8], Unreadable> {
    let expected = value.class() == Class::Universal && value.tag() == tag;
    if expected { Ok(value.data) } else { Err(Unreadable) }
}

fn octets<'a>(value: &Any<'a>) -> Result<&'a [u8], Unreadable> {
    content(value, Tag::OctetString)
}

/// A number from 0 to 2^64 − 1.
fn number(value: &Any) -> Result<u64, Unreadable> {
    content(value, Tag::Integer)?;
    value.as_u64().map_err(|_| Unreadable)
}

fn numbers(value: &Any) -> Result<Vec<u64>, Unreadable> {
    let mut values = Values(content(value, Tag::Set)?);
    let mut numbers = Vec::new();
    while !values.0.is_empty() {
        numbers.push(number(&values.next()?)?);
    }
    Ok(numbers)
}

/// BOOLEAN as phones write it: real ones write true as 0x01, DER as 0xff.
fn boolean(value: &Any) -> Result<bool, Unreadable> {
    match content(value, Tag::Boolean)? {
        [byte] => Ok(*byte != 0),
        _ => Err(Unreadable),
    }
}

fn level(value: &Any) -> Result<SecurityLevel, Unreadable> {
    match content(value, Tag::Enumerated)? {
        [0] => Ok(SecurityLevel::Software),
        [1] => Ok(SecurityLevel::TrustedEnvironment),
        [2] => Ok(SecurityLevel::StrongBox),
        _ => Err(Unreadable),
    }
}

/// Octets that should be text, without what a terminal would obey.
fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets)
        .chars()
        .take(SHOWN_MAX)
        .map(|symbol| if symbol.is_control() { '\u{fffd}' } else { symbol })
        .collect()
}

/// Lower-case hex of what is shown of `octets`.
pub(super) fn hex(octets: &[u8]) -> String {
    crate::hex(&octets[..octets.len().min(SHOWN_MAX / 2)])
}
