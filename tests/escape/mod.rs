//! Ways out that others have had, tried on this program.
//!
//! The list, by the number that SECURITY.md has, with the tests that hold each:
//!
//! | | what was done elsewhere | held by |
//! |---|---|---|
//! | T1 | the runtime's own binary opened through `/proc/self/exe` (CVE-2019-5736) | `escape::program`, `isolation::the_init_cannot_be_reached`, `container::exec::tests::the_runtime_itself_is_no_command` |
//! | T2 | a descriptor or the working directory of the caller (CVE-2016-9962, CVE-2024-21626) | `escape::descriptors`, `isolation::no_descriptor_of_the_callers_comes_in`, `isolation::the_working_directory_of_the_caller_does_not_come_in` |
//! | T3 | mount points that are links, or become some (CVE-2019-19921, CVE-2021-30465, CVE-2023-27561, CVE-2024-45310) | `escape::links`, `roots::a_root_of_links_leads_nowhere`, `fs::tests::a_tree_that_changes_meanwhile_leads_nowhere_outside` |
//! | T4 | the null device that masks are made of, replaced (CVE-2025-31133) | `roots::a_null_device_that_is_a_link_is_not_used_as_mask`, `fs::tests::a_device_must_be_the_device`, `escape::links` |
//! | T5 | the terminal bound to `/dev/console`, replaced (CVE-2025-52565) | `escape::places::the_console_is_the_terminal`, `escape::links` |
//! | T6 | what is written to procfs led elsewhere (CVE-2025-52881) | `escape::places::a_false_procfs_is_not_written_to` |
//! | T7 | `/dev` of the root a link to the host (CVE-2026-41579, CVE-2026-47766) | `escape::links`, `roots::a_root_of_links_leads_nowhere`, `fs::tests::kernel_file_systems_follow_no_link` |
//! | T8 | files made in the root by their names (CVE-2025-24965) | `escape::places::nothing_is_made_in_the_root_by_name` |
//! | T9 | a user that becomes root by a parser's mistake (CVE-2026-30892, CVE-2026-46680) | `escape::identity::users_are_never_root_by_mistake`, `isolation::users_are_exact_or_refused`, `container::users::tests::never_root_by_mistake` |
//! | T10 | groups that a file excludes, dropped (CVE-2018-7169, CVE-2014-8989) | `escape::identity::a_file_that_excludes_a_group_stays_closed` |
//! | T11 | input pushed into the caller's terminal (CVE-2017-5226, CVE-2019-10063) | `escape::identity::no_input_is_pushed_into_the_terminal`, `security::seccomp::tests::terminals_take_no_typing_whatever_the_high_bits` |
//! | T12 | a sysctl that is another file's (CVE-2022-0811) | `fs::tests::a_tmpfs_root_is_what_the_plan_says` |
//! | T13 | privileges kept from a set-user-ID start (CVE-2020-5291) | `cli::a_set_user_id_copy_refuses_to_run` |
//! | T14 | IPv6 that is off and yet there (CVE-2024-32473) | `addresses::ipv6_is_there_when_the_host_has_it_and_not_when_it_is_off` |
//! | T15 | every client looks like 127.0.0.1 (CVE-2021-20199) | `published::clients_keep_their_addresses_over_tcp_and_udp` |
//! | T16 | lengths that a field of a message cannot hold (CVE-2021-43784) | `escape::lengths` |
//!
//! The races start the program `CRUN_LITE_RACES` times (5), as each user.

mod descriptors;
mod identity;
mod lengths;
mod links;
mod places;
mod profiles;
mod program;

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::util::{CrunLite, number_from_env};

/// How many starts a race is given.
fn races() -> u64 {
    number_from_env("CRUN_LITE_RACES", 5)
}

/// What one start of a race has come to.
struct Start {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Starts `run` as often as races are to be, while another thread exchanges the two
/// paths of each of `pairs`, over and over. Gives the number of exchanges.
fn race(run: &CrunLite, pairs: &[(PathBuf, PathBuf)], mut look: impl FnMut(&Start)) -> u64 {
    let (done, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    /// Also where `look` panics, or the scope would wait for ever.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let _done = Done(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (one, other) in pairs {
                    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        for _ in 0..races() {
            let output = run.command().stdin(Stdio::null()).output().unwrap();
            look(&Start {
                code: output.status.code(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            });
        }
    });
    swaps.into_inner()
}
