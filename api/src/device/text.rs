//! Text of others on our terminal.

use std::fmt::Write;

/// `text` with everything that is not plainly visible written out, such as
/// `\u{1b}`, so that it can neither move the cursor nor hide a part of itself.
///
/// Line feeds stay. Escaped are the other control characters, the characters
/// that change the direction of writing, those that show nothing, and `\`.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for symbol in text.chars() {
        match symbol {
            '\n' => shown.push('\n'),
            '\\' => shown.push_str("\\\\"),
            _ if symbol.is_control() || hides(symbol) => {
                // Writing to a String does not fail.
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(symbol));
            }
            _ => shown.push(symbol),
        }
    }
    shown
}

/// Characters of Unicode's category Cf and separators that are no line feeds:
/// invisible, or able to make a text read in another order than it is in.
fn hides(symbol: char) -> bool {
    matches!(symbol,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_move_the_cursor_or_hide_is_written_out() {
        assert_eq!(printable("Pay 5 €\nto Anna"), "Pay 5 €\nto Anna");
        assert_eq!(
            printable("a\u{1b}[2Kb\r\t\u{7f}\u{9b}"),
            "a\\u{1b}[2Kb\\u{d}\\u{9}\\u{7f}\\u{9b}"
        );
        assert_eq!(printable("\u{202e}gro.knab\u{200b}"), "\\u{202e}gro.knab\\u{200b}");
        // Escapes cannot be forged.
        assert_eq!(printable("\\u{1b}"), "\\\\u{1b}");
    }
}
