//! keytrail over HTTP and on the command line.
//!
//! The only crate that knows all the others, the machine's clock and its
//! network. What it decides itself is who may call and how answers look; the
//! rules are in `engine`, the log in `storage`.
//!
//! Start reading at [`service`], then [`handlers`]. `src/main.rs` calls [`cli::run`].

pub mod anchors;
pub mod app;
pub mod auth;
pub mod call;
pub mod cli;
pub mod demo;
pub mod device;
pub mod digests;
pub mod erasure;
pub mod evidence;
pub mod guesses;
pub mod handlers;
pub mod http;
pub mod key_use;
pub mod limiter;
pub mod logging;
pub mod maintenance;
pub mod openapi;
pub mod ports;
pub mod problem;
pub mod refusals;
pub mod revocation;
pub mod sealing;
pub mod server;
pub mod service;
pub mod settings;
pub mod signing;
pub mod tls;
pub mod waits;
pub mod wire;
pub mod witness;
