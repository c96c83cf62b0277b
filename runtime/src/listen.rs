//! The addresses that a process listens on: `host:port`, with IPv6 and IPv4 together where the host is `::`.
//!
//! Must not know what is served there.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use rustix::net::sockopt::{set_ipv6_v6only, set_socket_send_buffer_size};
use tokio::net::{TcpListener, TcpSocket};

/// Connections that the operating system keeps until the process accepts them.
const BACKLOG: u32 = 1024;
/// Bytes that the operating system keeps for a client that does not read. Linux would keep some megabytes for each.
const SEND_BYTES_MAX: usize = 256 << 10;

/// Where a process listens. Its text is `host:port`; a host with colons has brackets in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Name or address, without brackets.
    pub host: String,
    /// Port; 0 lets the operating system choose.
    pub port: u16,
}

/// A text that is not `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not HOST:PORT, such as 127.0.0.1:8001 or [::]:8001")]
pub struct InvalidAddress {
    text: String,
}

impl Address {
    /// A host, with or without the brackets of an IPv6 address, and a port.
    pub fn new(host: &str, port: u16) -> Self {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        Self {
            host: bare.unwrap_or(host).to_owned(),
            port,
        }
    }

    /// Listens. `::` means all addresses, IPv6 and IPv4; on a machine without IPv6 those of IPv4.
    ///
    /// # Errors
    /// The error of the operating system.
    pub async fn bind(&self) -> io::Result<TcpListener> {
        let listener = self.bind_host().await?;
        // Connections have what their listener has.
        set_socket_send_buffer_size(&listener, SEND_BYTES_MAX)?;
        Ok(listener)
    }

    async fn bind_host(&self) -> io::Result<TcpListener> {
        if self.host.parse() != Ok(Ipv6Addr::UNSPECIFIED) {
            return TcpListener::bind((self.host.as_str(), self.port)).await;
        }
        match bind_both(self.port) {
            Err(error) if lacks_ipv6(&error) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.port)).await,
            bound => bound,
        }
    }
}

/// A listener for IPv6 and IPv4, whatever the machine's default is.
fn bind_both(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    set_ipv6_v6only(&socket, false)?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv6Addr::UNSPECIFIED, port).into())?;
    socket.listen(BACKLOG)
}

/// The kernel was built or started without IPv6.
fn lacks_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].contains(&Errno::from_io_error(error).unwrap_or(Errno::IO))
}

/// An address at which this machine reaches a listener.
pub fn reachable(listener: &TcpListener) -> io::Result<SocketAddr> {
    let mut address = listener.local_addr()?;
    if address.ip().is_unspecified() {
        // A listener for all addresses includes this one.
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Ok(address)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        match host.contains(':') {
            true => write!(f, "[{host}]:{port}"),
            false => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress {
            text: text.to_owned(),
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().map_err(|_| invalid())?;
        let address = Self::new(host, port);
        if address.host.is_empty() || address.host.contains(['[', ']']) {
            return Err(invalid());
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn a_host_may_have_brackets() {
        for (text, shown) in [
            ("[::]:8001", "[::]:8001"),
            (":::8001", "[::]:8001"),
            ("[::1]:1", "[::1]:1"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("localhost:0", "localhost:0"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown, "{text}");
        }
        for text in [
            "",
            "8001",
            ":8001",
            "[::]",
            "host:",
            "host:65536",
            "[::]]:1",
            "[]:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        assert_eq!(Address::new("[::1]", 1), Address::new("::1", 1));
    }

    #[tokio::test]
    async fn all_addresses_are_those_of_both_families() {
        let listener = Address::new("::", 0).bind().await.unwrap();
        let reached = reachable(&listener).unwrap();
        assert_eq!(reached.ip(), Ipv4Addr::LOCALHOST);
        assert!(TcpStream::connect(reached).await.is_ok());
        let is_both = listener.local_addr().unwrap().is_ipv6();
        let over_ipv6 = TcpStream::connect((Ipv6Addr::LOCALHOST, reached.port())).await;
        // A machine may have the protocol and no loopback address of it.
        assert!(is_both || over_ipv6.is_err());
    }

    #[tokio::test]
    async fn a_port_in_use_is_an_error() {
        let listener = Address::new("::", 0).bind().await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let again = Address::new("::", port).bind().await;
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
