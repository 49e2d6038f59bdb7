//! What happens to a server: killed, stopped, slowed by its disk, watched at its
//! system calls. Whatever it answered holds.

mod kill;
mod order;
mod scripts;
mod stop;
mod trace;
mod workers;
