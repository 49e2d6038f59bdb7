//! Where a request comes from, as far as limits on failures care.

use std::fmt;
use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};

use crate::http::edge::{Edge, Peers};
use crate::problem::ApiError;

/// A sender: one IPv4 address, or one IPv6 network of 64 bits.
///
/// A /64 is what one subscriber gets (RFC 6177), so its addresses count as one.
/// Behind a proxy the sender is the *last* address of `X-Forwarded-For`: that
/// one the proxy wrote, all before it the client may have made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl Source {
    /// The source that an address belongs to.
    #[must_use]
    pub fn of_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IpAddr::V4(address)),
            IpAddr::V6(address) => {
                let network = address.to_bits() & (u128::MAX << 64);
                Self(IpAddr::V6(Ipv6Addr::from_bits(network)))
            }
        }
    }

    fn of_request(request: &HttpRequest, peers: Peers) -> Self {
        let forwarded = match peers {
            Peers::Direct => None,
            Peers::BehindProxy => forwarded_for(request),
        };
        let peer = request.peer_addr().map(|peer| peer.ip());
        // Without an address (a request made in a test) all senders are one.
        Self::of_address(forwarded.or(peer).unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)))
    }
}

/// The last address of the last `X-Forwarded-For`.
fn forwarded_for(request: &HttpRequest) -> Option<IpAddr> {
    let last = request.headers().get_all("x-forwarded-for").last()?;
    let text = last.to_str().ok()?.rsplit(',').next()?.trim();
    // Some proxies write the port too; an IPv6 address then stands in brackets.
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().map(IpAddr::V6).ok();
    text.parse().ok().or_else(with_port).or_else(in_brackets)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromRequest for Source {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self::of_request(request, Edge::of(request).peers)))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn source(text: &str) -> Source {
        Source::of_address(text.parse().unwrap())
    }

    #[test]
    fn ipv6_addresses_of_one_network_are_one_source() {
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }

    #[test]
    fn a_forwarded_address_counts_only_behind_a_proxy_and_only_the_last_one() {
        let request = TestRequest::default()
            .peer_addr("10.0.0.1:1000".parse().unwrap())
            .insert_header(("X-Forwarded-For", "203.0.113.7, 198.51.100.2"))
            .to_http_request();
        assert_eq!(Source::of_request(&request, Peers::Direct), source("10.0.0.1"));
        assert_eq!(Source::of_request(&request, Peers::BehindProxy), source("198.51.100.2"));
    }

    #[test]
    fn a_forwarded_address_may_have_brackets_and_a_port() {
        for (sent, address) in [
            ("198.51.100.2:443", "198.51.100.2"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            let request = TestRequest::default()
                .peer_addr("10.0.0.1:1000".parse().unwrap())
                .insert_header(("X-Forwarded-For", sent))
                .to_http_request();
            assert_eq!(Source::of_request(&request, Peers::BehindProxy), source(address), "{sent}");
        }
    }

    #[test]
    fn an_unreadable_forwarded_address_falls_back_to_the_proxy() {
        let request = TestRequest::default()
            .peer_addr("10.0.0.1:1000".parse().unwrap())
            .insert_header(("X-Forwarded-For", "198.51.100.2, unknown"))
            .to_http_request();
        assert_eq!(Source::of_request(&request, Peers::BehindProxy), source("10.0.0.1"));
    }
}
