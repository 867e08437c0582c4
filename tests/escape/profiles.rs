//! `--security-opt seccomp=FILE`: profiles of others do here what they do elsewhere.

use std::fs;

use serde_json::json;

use crate::util::{Who, has_program, report, rootfs, tool};

/// podman's, where containers-common puts it.
const PODMANS: &str = "/usr/share/containers/seccomp.json";

/// Runs the same profile under crun and under the program, takes the filter that each
/// has installed from the kernel (ptrace(2), `PTRACE_SECCOMP_GET_FILTER`), and
/// evaluates both for every call. Its arguments: a root, a work folder, the profile,
/// and the program with its options up to the command.
const COMPARE: &str = r#"
import ctypes, json, os, struct, subprocess, sys, time
root, work, profile = sys.argv[1:4]
crun_lite = sys.argv[4:]
CAPS = ['CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'FSETID', 'KILL', 'NET_BIND_SERVICE', 'SETFCAP', 'SETGID', 'SETPCAP', 'SETUID', 'SYS_CHROOT']
CAPS = ['CAP_' + c for c in CAPS]
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

def ptrace(request, pid, address=0, data=None):
    result = libc.ptrace(request, pid, address, data)
    if result < 0:
        raise OSError(ctypes.get_errno(), 'ptrace %#x of %d' % (request, pid))
    return result

def filter_of(pid):
    ptrace(16, pid)
    os.waitpid(pid, 0x40000000)
    try:
        count = ptrace(0x420c, pid, 0)
        buffer = ctypes.create_string_buffer(8 * count)
        ptrace(0x420c, pid, 0, ctypes.addressof(buffer))
        try:
            ptrace(0x420c, pid, 1)
            sys.exit('more than one filter')
        except OSError:
            pass
    finally:
        ptrace(17, pid)
    return [struct.unpack_from('<HBBI', buffer, 8 * i) for i in range(count)]

def evaluate(program, number, args, arch=0xc000003e):
    data = struct.pack('<IIQ6Q', number, arch, 0, *args)
    a, x, at, memory = 0, 0, 0, [0] * 16
    while True:
        code, jt, jf, k = program[at]
        at += 1
        if code == 0x20: a, = struct.unpack_from('<I', data, k)
        elif code == 0x05: at += k
        elif code == 0x15: at += jt if a == k else jf
        elif code == 0x25: at += jt if a > k else jf
        elif code == 0x35: at += jt if a >= k else jf
        elif code == 0x45: at += jt if a & k else jf
        elif code == 0x54: a &= k
        elif code == 0x06: return k
        else: sys.exit('unknown instruction %#x' % code)

def children(pid):
    return [int(c) for c in open('/proc/%d/task/%d/children' % (pid, pid)).read().split()]

# As podman resolves it before it calls crun.
source = json.load(open(profile))
def applies(rule):
    excludes, includes = rule.get('excludes') or {}, rule.get('includes') or {}
    return not ('amd64' in (excludes.get('arches') or []) or any(c in CAPS for c in excludes.get('caps') or [])) \
        and (not includes.get('arches') or 'amd64' in includes['arches']) and all(c in CAPS for c in includes.get('caps') or [])
rules = [{'names': r['names'], 'action': r['action'], **({'errnoRet': r['errnoRet']} if r.get('errnoRet') is not None else {}), 'args': r.get('args') or []}
    for r in source['syscalls'] if applies(r)]
seccomp = {'defaultAction': source['defaultAction'], 'architectures': ['SCMP_ARCH_X86_64'], 'syscalls': rules}
if 'defaultErrnoRet' in source:
    seccomp['defaultErrnoRet'] = source['defaultErrnoRet']
os.chdir(work)
if os.path.exists('config.json'):
    os.remove('config.json')
subprocess.run(['crun', 'spec'], check=True)
config = json.load(open('config.json'))
config['root'] = {'path': root, 'readonly': False}
config['process'].update(terminal=False, args=['sh', '-c', 'echo ready; read line'], noNewPrivileges=True,
    capabilities={k: CAPS for k in ('bounding', 'effective', 'permitted')})
config['linux']['seccomp'] = seccomp
config['linux'].pop('resources', None)
config['mounts'] = [m for m in config['mounts'] if m['destination'] != '/sys/fs/cgroup']
json.dump(config, open('config.json', 'w'))
# crun 1.8 wants cgroup v2 alone, if any.
name = 'crun-lite-test-%d' % os.getpid()
filters = []
for words in (['unshare', '-m', 'sh', '-c', 'umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec "$@"', 'sh', 'crun', '--root', work + '/state', '--cgroup-manager=disabled', 'run', name], crun_lite + ['sh', '-c', 'echo ready; read line']):
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout.readline() != b'ready\n':
            sys.exit('%s did not start' % words[0])
        pid = process.pid
        while children(pid):
            pid = children(pid)[0]
        filters.append(filter_of(pid))
        process.stdin.close()
        process.wait()
ARGS = [(0,) * 6, (1,) * 6, (16, 3, 9, 0, 0, 0), (16, 3, 0, 0, 0, 0), (2, 1, 9, 0, 0, 0), (40, 1, 0, 0, 0, 0)]
ARGS += [(v,) * 6 for v in (8, 0x20000, 0x20008, 0xffffffff, 0x10000000, 0x40000000, 1 << 32, 8 | 1 << 32, 2**64 - 1)]
theirs, ours = filters
different, count, results = [], 0, set()
for number in list(range(1024)) + [2000, 0x3fffffff]:
    for args in ARGS:
        count += 1
        a, b = evaluate(theirs, number, args), evaluate(ours, number, args)
        results.add(b)
        if a != b:
            different.append('%d%r: crun %#x, ours %#x' % (number, args, a, b))
print('%d decisions, %d different, %d kinds; crun %d instructions, ours %d' % (count, len(different), len(results), len(theirs), len(ours)))
print('\n'.join(different[:20]))
"#;

/// Writes a profile and gives its path.
fn write(who: Who, folder: &std::path::Path, text: &str) -> String {
    let path = folder.join("profile.json");
    fs::write(&path, text).unwrap();
    who.own(&path);
    path.to_str().unwrap().to_owned()
}

both! {
    fn a_profile_decides(who) {
        let folder = who.folder();
        let rule = |names: &[&str], action: &str, errno: u32| json!({"names": names, "action": action, "errnoRet": errno});
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
            "syscalls": [rule(&["mkdir", "mkdirat", "no_such_call"], "SCMP_ACT_ERRNO", 28)],
        });
        let option = format!("--security-opt=seccomp={}", write(who, folder.path(), &profile.to_string()));
        let printed = who.sh(&[&option], "mkdir /tmp/x 2>&1; grep -w Seccomp: /proc/self/status");
        assert!(printed.contains("No space left on device"), "{printed}");
        assert!(printed.ends_with("Seccomp:\t2\n"), "{printed}");
        let plan = who.run(&[&option, "--dry-run", "--", "true"]).success();
        assert!(plan.contains("filter of /tmp/"), "{plan}");
        // The process, or the thread, is killed.
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(&["sethostname"], "SCMP_ACT_KILL_PROCESS", 0)]});
        let option = format!("--security-opt=seccomp={}", write(who, folder.path(), &profile.to_string()));
        let output = who.run(&["--net=none", &option, "--", "hostname", "other"]);
        assert_eq!(output.code(), Some(128 + 31), "SIGSYS{output}");
    }

    fn podmans_profile_serves(who) {
        need!(fs::exists(PODMANS).unwrap(), "podman's profile is not installed");
        let option = format!("--security-opt=seccomp={PODMANS}");
        for root in [&[][..], &["--rootfs=/"]] {
            let mut options = vec![&*option, "--tmpfs=/tmp"];
            options.extend(root);
            let printed = who.sh(&options, "echo $(ls / | cat | wc -l) > /tmp/out && cat /tmp/out && grep -w Seccomp: /proc/self/status");
            assert!(printed.ends_with("Seccomp:\t2\n"), "{printed}");
        }
    }

    fn a_bad_profile_is_an_error_before_anything_is_done(who) {
        let folder = who.folder();
        for (text, words) in [
            ("", &["EOF", "line 1 column 0"][..]),
            ("{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\",\n  \"syscalls\": [{]}", &["line 3 column 17"]),
            ("{\"syscalls\": []}", &["defaultAction", "line 1"]),
            ("{\"defaultAction\": \"SCMP_ACT_NOTIFY\"}", &["defaultAction", "SCMP_ACT_NOTIFY is not supported"]),
            ("{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{\"names\": [\"read\"], \"action\": \"SCMP_ACT_TRACE\"}]}", &["syscalls[0].action", "SCMP_ACT_TRACE"]),
        ] {
            let path = write(who, folder.path(), text);
            let option = format!("--security-opt=seccomp={path}");
            let volume = format!("{}:/made/inside", folder.path().display());
            let mut names = vec!["--security-opt", "profile.json"];
            names.extend(words);
            who.run(&[&option, "-v", &volume, "--", "true"]).refused(&names);
        }
        for missing in ["/no/such/profile.json", "/", "/dev/zero"] {
            who.run(&[&format!("--security-opt=seccomp={missing}"), "--", "true"]).refused(&["--security-opt", missing]);
        }
    }
}

#[test]
fn a_profile_does_what_it_does_under_crun() {
    need!(
        cfg!(target_arch = "x86_64"),
        "the numbers of this test are x86-64's"
    );
    need!(Who::tests_run_as_root(), "reading a filter takes root");
    need!(has_program("crun"), "no crun(1)");
    need!(has_program("python3"), "no python3(1)");
    need!(
        fs::exists(PODMANS).unwrap(),
        "podman's profile is not installed"
    );
    let folder = rootfs::busybox(Who::Root);
    need!(folder.is_some(), "the host has no static busybox");
    let folder = folder.unwrap();
    let work = Who::Root.folder();
    let (root, work) = (
        folder.path().to_str().unwrap(),
        work.path().to_str().unwrap(),
    );
    let other = write(Who::Root, folder.path(), &json!({
        "defaultAction": "SCMP_ACT_LOG",
        "syscalls": [
            {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": [{"index": 0, "value": 0x2_0000, "valueTwo": 0x2_0000, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["socket"], "action": "SCMP_ACT_KILL_PROCESS", "args": [{"index": 0, "value": 16, "op": "SCMP_CMP_GT"}, {"index": 1, "value": 1, "op": "SCMP_CMP_NE"}]},
            {"names": ["clone"], "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "value": 0x1_0000_0000_u64, "op": "SCMP_CMP_GE"}]},
            {"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            {"names": ["setpriority"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_LT"}]},
            {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_LE"}]},
            {"names": ["reboot", "mount"], "action": "SCMP_ACT_KILL"}
        ],
    }).to_string());
    for profile in [PODMANS, &other] {
        let program = Who::Root.program();
        let (root_option, security) = (
            format!("--rootfs={root}"),
            format!("--security-opt=seccomp={profile}"),
        );
        let printed = tool(
            "/usr/bin/python3",
            &[
                "-c",
                COMPARE,
                root,
                work,
                profile,
                program.path.to_str().unwrap(),
                "run",
                "-i",
                "--net=none",
                &root_option,
                &security,
                "--",
            ],
        );
        report(&format!("seccomp, {profile}: {}", printed.trim()));
        assert!(printed.contains(" decisions, 0 different, "), "{printed}");
    }
}
