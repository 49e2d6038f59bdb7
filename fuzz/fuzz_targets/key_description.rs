//! The key description extension, without the chain around it.
#![no_main]

use engine::attestation::Findings;
use engine::attestation::description::KeyDescription;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| {
    let Ok(description) = KeyDescription::read(value) else { return };
    description.show(&mut Findings::default());
    for list in [&description.software, &description.hardware] {
        let _ = (list.purposes(), list.origin(), list.exportable());
        let _ = (list.root_of_trust(), list.os_patch_level(), list.application_id());
    }
});
