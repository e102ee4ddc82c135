//! What `dev` prints when it is ready.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;

use super::certificate::Certificate;
use crate::cli::paint::Paint;
use crate::runtime::Ready;

/// Everything that a developer needs next.
pub struct Banner {
    pub ready: Ready,
    pub token: String,
    pub certificate: Certificate,
    pub paint: Paint,
}

impl Banner {
    /// To stdout; quietly only the page.
    pub fn print(&self, quiet: bool) {
        let text = if quiet {
            format!("{}\n", self.page())
        } else {
            self.render()
        };
        // A closed stdout is no reason to stop serving.
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }

    /// The development server never listens on anything else.
    fn listen(&self) -> SocketAddr {
        self.ready.listen.tcp().unwrap_or(crate::net::NAMELESS)
    }

    fn page(&self) -> String {
        format!("https://{}/", authority(self.listen()))
    }

    fn render(&self) -> String {
        let Self {
            token,
            certificate,
            paint,
            ..
        } = self;
        let (page, authority) = (self.page(), authority(self.listen()));
        let ca = certificate.authority.display();
        let mut text = String::from("\n");
        let mut line = |words: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", words.trim_end());
        };
        line(format!(
            "  {}  {}",
            paint.bold("Conclave is ready."),
            paint.loud(" FOR DEVELOPMENT ONLY ")
        ));
        line(paint.faint("  Only this machine can reach it. Its certificate and its keys are throw-away ones."));
        line(String::new());
        line(format!("  {}      {}", paint.bold("Page"), paint.link(&page)));
        line(format!(
            "            {}",
            paint.faint("open it twice, and the two tabs chat")
        ));
        line(format!(
            "  {}   {}",
            paint.bold("As user"),
            paint.link(format!("{page}#token={token}"))
        ));
        line(format!(
            "  {}    {}",
            paint.bold("Socket"),
            paint.link(format!("wss://{authority}/ws?token={token}"))
        ));
        line(format!("  {}     {token}", paint.bold("Token")));
        line(format!("            {}", paint.faint("user dev, good for 12 hours")));
        line(format!(
            "  {}   {}",
            paint.bold("Metrics"),
            paint.link(format!("http://{}/metrics", self.ready.admin_listen))
        ));
        line(String::new());
        line(format!("  {}        {ca}", paint.bold("CA")));
        line(format!("  {}   {}", paint.bold("SHA-256"), certificate.fingerprint));
        line(format!(
            "            {}",
            paint.faint("It vouches for localhost only. To trust it:")
        ));
        line(format!("            curl --cacert '{ca}' {page}livez"));
        line(format!(
            "            {}",
            paint.faint("browser: import that file as a certificate authority, or accept the warning once")
        ));
        line(String::new());
        line(format!("  {}", paint.bold("Next")));
        for (command, why) in self.next() {
            line(format!("    {command}\n        {}", paint.faint(why)));
        }
        text.push('\n');
        text
    }

    fn next(&self) -> [(String, &'static str); 4] {
        let authority = authority(self.listen());
        let ca = self.certificate.authority.display();
        let socket = format!("wss://{authority}/ws");
        let url = if self.listen().port() == 8443 && self.listen().is_ipv4() {
            String::new()
        } else {
            format!(" --url {socket}")
        };
        [
            (
                "conclave token --sub ana --name Ana".to_owned(),
                "a token for another user",
            ),
            (
                format!("SSL_CERT_FILE='{ca}' websocat \"{socket}?token=$(conclave token --sub ana -q)\""),
                "then type {\"type\":\"join\",\"room\":\"lobby\"}",
            ),
            (
                format!("NODE_EXTRA_CA_CERTS='{ca}' npx wscat -c \"{socket}?token=$(conclave token --sub bob -q)\""),
                "the same with Node",
            ),
            (format!("conclave bench idle{url}"), "what this machine can hold"),
        ]
    }
}

/// `localhost:8443` for 127.0.0.1, the address otherwise.
fn authority(listen: SocketAddr) -> String {
    if listen.is_ipv4() {
        format!("localhost:{}", listen.port())
    } else {
        listen.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banner(listen: &str) -> String {
        let certificate = Certificate {
            certificate: "/s/localhost.crt".into(),
            key: "/s/localhost.key".into(),
            authority: "/s/ca.crt".into(),
            fingerprint: "AB:CD".to_owned(),
        };
        let ready = Ready {
            listen: crate::config::Listen::Tcp(listen.parse().unwrap()),
            admin_listen: "127.0.0.1:9464".parse().unwrap(),
            is_handed_on: false,
        };
        Banner {
            ready,
            token: "h.c.s".to_owned(),
            certificate,
            paint: Paint::off(),
        }
        .render()
    }

    #[test]
    fn names_everything_one_needs_and_keeps_the_pages_token_in_the_fragment() {
        let text = banner("127.0.0.1:8443");
        for needed in [
            "FOR DEVELOPMENT ONLY",
            "https://localhost:8443/\n",
            "https://localhost:8443/#token=h.c.s",
            "wss://localhost:8443/ws?token=h.c.s",
            "http://127.0.0.1:9464/metrics",
            "AB:CD",
            "curl --cacert '/s/ca.crt' https://localhost:8443/livez",
            "conclave bench idle\n",
        ] {
            assert!(text.contains(needed), "{needed} in {text}");
        }
        assert!(!text.contains("/?token="));
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn another_port_is_carried_into_every_line() {
        let text = banner("[::1]:4433");
        assert!(text.contains("https://[::1]:4433/\n") && text.contains("bench idle --url wss://[::1]:4433/ws"));
        assert!(!text.contains("8443"));
    }
}
