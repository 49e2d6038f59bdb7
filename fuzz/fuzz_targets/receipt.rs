//! A receipt.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replay::proof::Receipt;

fuzz_target!(|text: &str| {
    let Ok(receipt) = text.parse::<Receipt>() else { return };
    assert_eq!(receipt.text().parse::<Receipt>().expect("what was written"), receipt);
});
