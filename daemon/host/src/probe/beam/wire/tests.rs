//! The messages against the byte layouts of the manual, and against anything else.

use super::*;

#[test]
fn requests_are_laid_out_as_the_manual_says() {
    assert_eq!(frame(&port_please("shop")), b"\x00\x05zshop");
    assert_eq!(
        send_name(CAPABILITIES, 7, "a@b"),
        b"N\x00\x00\x00\x14\x03\x07\x0f\x94\x00\x00\x00\x07\x00\x03a@b",
        "tag, 64 bits of flags, 32 of creation, 16 of length, name"
    );
    assert_eq!(challenge_reply(0x0102_0304, [9; 16]), [&b"r\x01\x02\x03\x04"[..], &[9; 16]].concat());
    assert_eq!(go_on(), b"strue");
}

#[test]
fn a_connection_of_zed_is_hidden_and_takes_no_name_from_the_node() {
    assert_eq!(CAPABILITIES & 1, 0, "DFLAG_PUBLISHED");
    assert_eq!(CAPABILITIES & (1 << 33), 0, "DFLAG_NAME_ME");
}

#[test]
fn epmd_s_answers_are_read() {
    let known = b"w\x00\xa0\x11\x4d\x00\x00\x06\x00\x05\x00\x04shop\x00\x00";
    assert_eq!(parse_port(known), Ok(Port::At { port: 40_977, highest: 6, lowest: 5 }));
    assert_eq!(parse_port(b"w\x01"), Ok(Port::Unknown));
    assert_eq!(
        parse_port(b"").unwrap_err().to_string(),
        "epmd's answer is not what the protocol says: nothing"
    );
    for bad in [&b"w"[..], b"x\x00", b"HTTP/1.1 400", &known[..9]] {
        assert!(parse_port(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn the_handshake_is_read() {
    assert_eq!(parse_status(b"sok"), Ok(Status::Ok));
    assert_eq!(parse_status(b"sok_simultaneous"), Ok(Status::Ok));
    assert_eq!(parse_status(b"salive"), Ok(Status::Alive));
    assert_eq!(parse_status(b"snot_allowed"), Ok(Status::Refused("not_allowed".to_owned())));
    assert!(parse_status(b"s").is_err() && parse_status(b"").is_err());
    let message = b"N\x00\x00\x00\x0d\x07\xdf\x7f\xbd\xde\xad\xbe\xef\x63\x88\x7f\x01\x00\x09shop@h.ex";
    let challenge = parse_challenge(message).unwrap();
    assert_eq!((challenge.challenge, challenge.name.as_str()), (0xdead_beef, "shop@h.ex"));
    // Version 5: tag `n`.
    assert!(parse_challenge(b"n\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00a@b").is_err());
    assert_eq!(parse_ack(&[&b"a"[..], &[3; 16]].concat()), Ok([3; 16]));
    assert!(parse_ack(b"a").is_err() && parse_ack(&[b'a'; 18]).is_err());
}

#[test]
fn a_digest_is_of_the_cookie_and_the_decimal_challenge() {
    // erlang:md5(["monster", "4023233417"]).
    let wanted = Md5::digest(b"monster4023233417");
    assert_eq!(digest("monster", 4_023_233_417), <[u8; 16]>::from(wanted));
    assert_eq!(
        digest("", 0),
        [0xcf, 0xcd, 0x20, 0x84, 0x95, 0xd5, 0x65, 0xef, 0x66, 0xe7, 0xdf, 0xf9, 0xf9, 0x87, 0x64, 0xda]
    );
}

#[test]
fn every_cut_of_every_message_is_refused_and_none_panics() {
    let messages: [&[u8]; 3] = [
        b"w\x00\xa0\x11\x4d\x00\x00\x06\x00\x05",
        b"N\x00\x00\x00\x0d\x07\xdf\x7f\xbd\xde\xad\xbe\xef\x63\x88\x7f\x01\x00\x09shop@h.ex",
        b"a0123456789abcdef",
    ];
    for message in messages {
        for end in 0..message.len() {
            let cut = &message[..end];
            assert!(parse_port(cut).is_err() && parse_challenge(cut).is_err() && parse_ack(cut).is_err());
        }
    }
}
