use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}

#[test]
fn every_form_of_an_address_has_the_class_of_what_is_there() {
    use AddressClass::{Broadcast, LinkLocal, Loopback, Metadata, Multicast, Private, Public, Reserved, Unspecified};
    for (address, class) in [
        ("1.1.1.1", Public),
        ("9.255.255.255", Public),
        ("11.0.0.0", Public),
        ("172.15.0.1", Public),
        ("172.32.0.1", Public),
        ("100.63.255.255", Public),
        ("100.128.0.0", Public),
        ("0.0.0.0", Unspecified),
        ("0.1.2.3", Unspecified),
        ("10.0.0.1", Private),
        ("172.16.0.1", Private),
        ("172.31.255.255", Private),
        ("192.168.1.1", Private),
        ("100.64.0.1", Private),
        ("198.19.0.1", Private),
        ("127.0.0.1", Loopback),
        ("127.255.0.1", Loopback),
        ("169.254.169.254", LinkLocal),
        ("168.63.129.16", Metadata),
        ("100.100.100.200", Metadata),
        ("192.0.0.192", Metadata),
        ("224.0.0.1", Multicast),
        ("255.255.255.255", Broadcast),
        ("240.0.0.1", Reserved),
        ("192.0.2.1", Reserved),
        ("203.0.113.9", Reserved),
        ("2606:4700::1111", Public),
        ("2001:4860:4860::8888", Public),
        ("::", Unspecified),
        ("::1", Loopback),
        ("fd00::1", Private),
        ("fec0::1", Private),
        ("fe80::1", LinkLocal),
        ("febf::1", LinkLocal),
        ("fd00:ec2::254", Metadata),
        ("fd20:ce::254", Metadata),
        ("ff02::1", Multicast),
        ("2001:db8::1", Reserved),
        ("2001:0:5ef5:79fd::1", Reserved),
        ("64:ff9b:1::a00:1", Reserved),
        ("100::1", Reserved),
        ("4000::1", Reserved),
        // The same IPv4 addresses in IPv6's clothes.
        ("::ffff:127.0.0.1", Loopback),
        ("::ffff:1.1.1.1", Public),
        ("::ffff:169.254.169.254", LinkLocal),
        ("::127.0.0.1", Loopback),
        ("::ffff:0:10.0.0.1", Private),
        ("64:ff9b::169.254.169.254", LinkLocal),
        ("64:ff9b::7f00:1", Loopback),
        ("64:ff9b::1.1.1.1", Public),
        ("2002:a9fe:a9fe::", LinkLocal),
        ("2002:7f00:1::1", Loopback),
        ("2002:a00:1::1", Private),
        ("::ffff:168.63.129.16", Metadata),
    ] {
        assert_eq!(AddressClass::of(ip(address)), class, "{address}");
    }
}

#[test]
fn a_public_name_leads_to_public_addresses_and_an_inner_one_inside_too() {
    let rule = Rule::default();
    for (name, address, is_good) in [
        ("login.example.com", "1.1.1.1", true),
        ("login.example.com", "10.0.0.1", false),
        ("login.example.com", "127.0.0.1", false),
        ("login.example.com", "::ffff:127.0.0.1", false),
        ("login.example.com", "64:ff9b::10.0.0.1", false),
        ("login.example.com", "192.0.2.1", false),
        ("localhost.example.com", "127.0.0.1", false),
        ("svc", "10.0.0.1", true),
        ("example.svc", "10.0.0.1", true),
        ("EXAMPLE.SVC.", "10.0.0.1", true),
        ("login.shop.svc.cluster.local", "10.0.0.1", true),
        ("login.shop.internal", "10.0.0.1", true),
        ("login.home.arpa", "fd00::1", true),
        ("app.localhost", "::1", true),
        ("backend", "172.18.0.3", true),
        ("backend", "1.1.1.1", true),
        ("localhost", "127.0.0.1", true),
        ("localhost.", "::1", true),
        ("notlocal", "127.0.0.1", true),
        ("not.a.local.example", "127.0.0.1", false),
        ("mylocal.com", "127.0.0.1", false),
        ("metadata.google.internal", "169.254.169.254", false),
        ("backend", "fe80::1", false),
        ("backend", "fd00:ec2::254", false),
        ("backend", "0.0.0.0", false),
        ("backend", "224.0.0.1", false),
    ] {
        let verdict = rule.check_resolved(name, ip(address));
        assert_eq!(verdict.is_ok(), is_good, "{name} {address}: {verdict:?}");
    }
}

#[test]
fn a_listed_network_is_allowed_in_every_form() {
    let rule = Rule::new(&["10.0.0.0/8".parse().unwrap(), "169.254.7.0/24".parse().unwrap()]);
    for address in ["10.1.2.3", "::ffff:10.1.2.3", "169.254.7.9"] {
        assert_eq!(
            rule.check_resolved("login.example.com", ip(address)),
            Ok(()),
            "{address}"
        );
    }
    for address in ["127.0.0.1", "192.168.0.1", "169.254.169.254"] {
        assert!(
            rule.check_resolved("login.example.com", ip(address)).is_err(),
            "{address}"
        );
    }
    assert_eq!(rule.check_literal(ip("169.254.7.9")), Ok(()));
}

#[test]
fn a_literal_address_is_taken_at_its_word_except_where_nobody_serves() {
    let rule = Rule::default();
    for address in ["127.0.0.1", "10.0.0.1", "192.0.2.1", "::1", "fd00::1", "1.1.1.1"] {
        assert_eq!(rule.check_literal(ip(address)), Ok(()), "{address}");
    }
    for address in [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::",
        "fe80::1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "fd00:ec2::254",
    ] {
        assert!(rule.check_literal(ip(address)).is_err(), "{address}");
    }
}
