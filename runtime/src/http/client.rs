//! Which client a request comes from, and for which one a task works.

use std::net::IpAddr;

use axum::extract::Request;

use super::auth::ApiKeys;
use crate::client::Client;

/// The address at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

tokio::task_local! {
    static CLIENT: Client;
}

/// Answers a request of a client.
pub(super) async fn for_client<T>(client: Client, work: impl Future<Output = T>) -> T {
    CLIENT.scope(client, work).await
}

/// The client whose request this task answers.
pub(super) fn current_client() -> Client {
    CLIENT.try_with(|client| *client).unwrap_or_default()
}

/// The client that a request comes from: the holder of its valid key, or else whoever sends from its address.
pub(super) fn client_of(request: &Request, keys: &ApiKeys) -> Client {
    if let Some(key) = keys.holder(request.headers()) {
        return Client::Key(*key.as_bytes());
    }
    let peer = request.extensions().get::<Peer>();
    peer.map_or(Client::Inside, |Peer(address)| Client::at(*address))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn client(keys: &[String], key: Option<&str>) -> Client {
        let request = Request::builder()
            .uri("/")
            .extension(Peer("10.0.0.1".parse().unwrap()));
        let request = match key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        };
        client_of(&request.body(Body::empty()).unwrap(), &ApiKeys::new(keys))
    }

    #[test]
    fn a_client_is_its_key_or_its_address() {
        let keys = ["a".to_owned(), "b".to_owned()];
        let address = Client::at("10.0.0.1".parse().unwrap());
        assert_eq!(client(&[], None), address);
        // Anyone can invent keys.
        assert_eq!(client(&[], Some("a")), address);
        assert_eq!(client(&keys, Some("c")), address);
        let holders = ["a", "b"].map(|key| client(&keys, Some(key)));
        assert!(holders[0] != holders[1] && !holders.contains(&address));
    }
}
