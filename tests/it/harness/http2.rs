//! One HTTP/2 connection with several streams, WebSockets among them (RFC 8441).

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};

use super::{Answer, Client, Node, within};

/// What travels between a test's client and its stream at once.
const PIPE_BYTES: usize = 64 * 1024;

pub struct Http2 {
    requests: SendRequest<Bytes>,
}

impl Http2 {
    pub async fn connect(node: &Node) -> Self {
        Self::over(node.tls().alpn(&["h2"]).connect().await).await
    }

    /// On a stream of any kind, without asking first whether the other side speaks HTTP/2.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (requests, connection) = within("HTTP/2", h2::client::handshake(stream)).await.expect("HTTP/2");
        tokio::spawn(async move {
            // It ends with the test, or is cut by it.
            let _ = connection.await;
        });
        let mut requests = within("the settings", requests.ready()).await.expect("HTTP/2");
        // The server's SETTINGS come before its first answer.
        let probe = Self {
            requests: requests.clone(),
        }
        .get("/livez")
        .await;
        assert_eq!(probe.0, 200);
        assert!(requests.is_extended_connect_protocol_enabled(), "RFC 8441 section 3");
        requests = requests.ready().await.expect("HTTP/2");
        Self { requests }
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let request = Request::get(format!("https://localhost{path}")).body(()).unwrap();
        let (response, _) = self.send(request, true).await;
        let response = within("an answer", response).await.expect("an answer");
        let (head, mut body) = response.into_parts();
        let mut bytes = Vec::new();
        while let Some(piece) = within("the body", body.data()).await {
            bytes.extend(piece.expect("the body"));
        }
        (head.status.as_u16(), String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn send(&self, request: Request<()>, end: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let mut requests = within("a stream", self.requests.clone().ready())
            .await
            .expect("a stream");
        requests.send_request(request, end).expect("a request")
    }

    /// Extended CONNECT to `/ws`, to be changed by `with`.
    pub async fn connect_with(
        &self,
        path: &str,
        with: impl FnOnce(&mut Request<()>),
    ) -> (Response<RecvStream>, SendStream<Bytes>) {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = format!("https://localhost{path}").parse().unwrap();
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        request
            .headers_mut()
            .insert("sec-websocket-version", "13".parse().unwrap());
        with(&mut request);
        let (response, body) = self.send(request, false).await;
        (within("an answer", response).await.expect("an answer"), body)
    }

    /// A WebSocket on a stream of its own.
    pub async fn socket(&self, token: &str) -> Client {
        let (response, send) = self.connect_with(&format!("/ws?token={token}"), |_| {}).await;
        assert_eq!(response.status(), 200);
        let answer = Answer {
            status: 200,
            headers: Vec::new(),
            body: String::new(),
        };
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (read, write) = tokio::io::split(theirs);
        tokio::spawn(down(response.into_body(), write));
        tokio::spawn(up(read, send));
        Client::over(Box::new(ours), Vec::new(), answer)
    }
}

/// From the server to the test. The end of the stream, however it comes, is the end of the pipe.
async fn down(mut body: RecvStream, mut pipe: WriteHalf<DuplexStream>) {
    while let Some(Ok(bytes)) = body.data().await {
        let _ = body.flow_control().release_capacity(bytes.len());
        if pipe.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = pipe.shutdown().await;
}

/// From the test to the server. When the test drops its end, the stream is reset.
async fn up(mut pipe: ReadHalf<DuplexStream>, mut send: SendStream<Bytes>) {
    let mut bytes = vec![0; PIPE_BYTES];
    loop {
        match pipe.read(&mut bytes).await {
            Ok(0) | Err(_) => return send.send_reset(h2::Reason::CANCEL),
            Ok(read) => {
                if send.send_data(Bytes::copy_from_slice(&bytes[..read]), false).is_err() {
                    return;
                }
            }
        }
    }
}
