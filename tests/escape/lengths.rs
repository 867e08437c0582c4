//! T16: what is too long is refused before anything is done, and what is not arrives.

use crate::util::Who;

both! {
    fn what_is_too_long_is_refused(who) {
        for length in [65_535, 65_536, 70_000, 100_000] {
            let long = "x".repeat(length);
            let path = format!("/{long}");
            let deep = "/x".repeat(length / 2);
            for option in [
                format!("--hostname={long}"),
                format!("--workdir={path}"),
                format!("--workdir={deep}"),
                format!("--volume=/tmp:{path}"),
                format!("--volume={path}:/x"),
                format!("--mount=type=tmpfs,dst={deep}"),
                format!("--tmpfs={path}"),
                format!("--tmpfs={deep}"),
                format!("--rootfs={path}"),
                format!("--security-opt=mask={path}"),
                format!("--security-opt=seccomp={path}"),
                format!("--user={long}"),
                format!("--add-host={long}:192.0.2.1"),
                format!("--dns-search={long}"),
                format!("--name={long}"),
                format!("--env-file={path}"),
            ] {
                let output = who.run(&[&option, "--", "true"]);
                let shown = &option[..20];
                assert_eq!(output.code(), Some(125), "{shown} of {length} bytes: {:?}", output.stderr.get(..200));
                assert!(!output.stderr.contains("panicked") && output.stdout.is_empty(), "{shown}");
                assert!(output.stderr.len() < 1000, "{shown}: a message of {} bytes", output.stderr.len());
            }
            let output = who.run(&["--net=none", "--", &path]);
            assert!([Some(125), Some(127), Some(126)].contains(&output.code()), "{:?}", output.code());
        }
    }

    fn what_is_long_and_allowed_arrives_whole(who) {
        // A word may have 128 KiB less its end (execve(2), MAX_ARG_STRLEN).
        for length in [65_535, 65_536, 131_000] {
            let long = "y".repeat(length);
            let variable = format!("LONG={}", &long[..length - 5]);
            let output = who.run(&["--net=none", "-e", &variable, "--", "sh", "-c", "echo ${#1} ${#LONG}; echo \"$1\" | tr -d y | wc -c", "sh", &long]);
            assert_eq!(output.success(), format!("{length} {}\n1\n", length - 5));
        }
        let most = format!("{}.{}", "z".repeat(31), "z".repeat(32));
        assert_eq!(who.sh(&[&format!("--hostname={most}")], "hostname"), format!("{most}\n"));
        // 255 bytes a name, 4095 a path.
        let deep = format!("/{}", "d".repeat(255)).repeat(15);
        assert_eq!(who.sh(&["-w", &deep], "pwd | wc -c"), format!("{}\n", deep.len() + 1));
    }
}
