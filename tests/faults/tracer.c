/* Makes system calls of a running process fail: tracer PID. x86-64 only.
 *
 * A site is a system call together with the kind of object that it is about, such as
 * "read tcp" or "epoll_ctl add ping". At the entry of a call that is to fail it is
 * replaced by close(-1), which does nothing and which every filter for system calls
 * here lets pass; at its exit the result becomes the error. Nothing of the process is
 * other than it is otherwise.
 *
 * Commands are lines on the standard input, each answered by lines, the last "." :
 *
 *   fault SITE|WHAT|TIMES|MS   WHAT: an error number, or "short"; at most so often, and
 *                              no longer than that after the first time
 *   off                        "COUNT FIRST LAST": how often, and how many ms ago
 *   sites                      "COUNT SITE" of all calls so far
 *   open                       "COUNT KIND" of the descriptors opened since the start
 *   calls                      the number of system calls so far */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FDS 65536
#define SITES 512
#define NAME 96
#ifndef SOL_UDP
#define SOL_UDP 17
#endif

typedef struct user_regs_struct Regs;

static pid_t pid;
/* What each descriptor is; empty: not known yet. */
static char kinds[FDS][24];
/* It was opened while we looked. */
static char ours[FDS];
static struct {
	char name[NAME];
	unsigned long count;
} sites[SITES];
static int site_count;
static unsigned long calls;

static struct {
	char site[NAME];
	int what; /* an error number; 0: short */
	long left, met, ms;
	double first, last;
} fault;

static void check(long result, const char *what)
{
	if (result < 0) {
		if (errno == ESRCH)
			exit(0);
		perror(what);
		exit(2);
	}
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

/* Our copy of a descriptor of the process. */
static int copy(int fd)
{
	int pidfd = syscall(SYS_pidfd_open, pid, 0), got;

	check(pidfd, "pidfd_open");
	got = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	close(pidfd);
	return got;
}

static int option(int fd, int name)
{
	int value = -1;
	socklen_t length = sizeof value;

	getsockopt(fd, SOL_SOCKET, name, &value, &length);
	return value;
}

/* The event loop that a descriptor is registered with, and as what; -1: none. */
static int is_watched(int fd, struct epoll_event *event)
{
	char path[64], link[64], line[256];
	int found = -1, target;
	unsigned events;
	unsigned long long data;

	for (int epoll = 3; epoll < 64 && found < 0; epoll++) {
		FILE *info;

		memset(link, 0, sizeof link);
		snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, epoll);
		if (readlink(path, link, sizeof link - 1) < 0 || strcmp(link, "anon_inode:[eventpoll]"))
			continue;
		snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", pid, epoll);
		info = fopen(path, "r");
		while (info && fgets(line, sizeof line, info)) {
			if (sscanf(line, "tfd: %d events: %x data: %llx", &target, &events, &data) != 3 ||
			    target != fd)
				continue;
			found = epoll;
			if (event) {
				event->events = events;
				event->data.u64 = data;
			}
		}
		if (info)
			fclose(info);
	}
	return found;
}

/* One that was there before us, or has come in a message. */
static const char *found(int fd)
{
	char path[64], link[256] = "";
	const char *kind = "socket";
	int mine;

	snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
	if (readlink(path, link, sizeof link - 1) < 0)
		return "nothing";
	if (fd <= 2)
		return "stdio";
	if (strstr(link, "net/tun"))
		return "tap";
	if (!strncmp(link, "anon_inode:[eventpoll]", 22))
		return "epoll";
	if (!strncmp(link, "anon_inode:[timerfd]", 20))
		return "timer";
	if (!strncmp(link, "anon_inode:[signalfd]", 21))
		return "signals";
	if (!strncmp(link, "anon_inode:", 11))
		return "pidfd";
	if (!strncmp(link, "pipe:", 5))
		return "pipe";
	if (strstr(link, "capture"))
		return "capture";
	if (strstr(link, "refusals"))
		return "log";
	if (strncmp(link, "socket:", 7))
		return "file";
	mine = copy(fd);
	if (mine < 0)
		return "nothing";
	switch (option(mine, SO_DOMAIN)) {
	case AF_NETLINK:
		kind = fcntl(mine, F_GETFL) & O_NONBLOCK ? "monitor" : "routes";
		break;
	case AF_UNIX:
		kind = option(mine, SO_TYPE) == SOCK_SEQPACKET ? (is_watched(fd, NULL) >= 0 ? "init" : "keeper")
		       : option(mine, SO_ACCEPTCONN) ? "control listener" : "control";
		break;
	case AF_PACKET:
		kind = "packet";
		break;
	case AF_INET:
	case AF_INET6:
		/* Those for clients of the host itself are made by init. */
		kind = option(mine, SO_TYPE) == SOCK_DGRAM ? "published udp"
		       : option(mine, SO_ACCEPTCONN) ? "listener" : "inside";
		break;
	}
	close(mine);
	return kind;
}

static const char *kind(long fd)
{
	if (fd < 0 || fd >= FDS)
		return "nothing";
	if (!kinds[fd][0])
		strcpy(kinds[fd], found(fd));
	return kinds[fd];
}

static void opened(long fd, const char *what)
{
	if (fd < 0 || fd >= FDS)
		return;
	strcpy(kinds[fd], what);
	ours[fd] = 1;
}

static const char *socket_kind(const Regs *regs)
{
	if ((regs->rsi & 0xf) == SOCK_STREAM)
		return "tcp";
	return regs->rdx ? "ping" : "udp";
}

static const char *option_name(long level, long name)
{
	static char text[32];
	static const struct {
		int level, name;
		const char *text;
	} names[] = {
		{ SOL_TCP, TCP_NODELAY, "TCP_NODELAY" },
		{ SOL_TCP, TCP_CONGESTION, "TCP_CONGESTION" },
		{ SOL_TCP, TCP_KEEPIDLE, "TCP_KEEPIDLE" },
		{ SOL_TCP, TCP_KEEPINTVL, "TCP_KEEPINTVL" },
		{ SOL_TCP, TCP_KEEPCNT, "TCP_KEEPCNT" },
		{ SOL_SOCKET, SO_OOBINLINE, "SO_OOBINLINE" },
		{ SOL_SOCKET, SO_LINGER, "SO_LINGER" },
		{ SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF" },
		{ SOL_SOCKET, SO_ERROR, "SO_ERROR" },
		{ SOL_SOCKET, SO_TYPE, "SO_TYPE" },
		{ SOL_SOCKET, SO_DOMAIN, "SO_DOMAIN" },
		{ SOL_SOCKET, SO_PEERCRED, "SO_PEERCRED" },
		{ SOL_SOCKET, SO_KEEPALIVE, "SO_KEEPALIVE" },
		{ SOL_IP, IP_TTL, "IP_TTL" },
		{ SOL_IP, IP_RECVERR, "IP_RECVERR" },
		{ SOL_IP, IP_PKTINFO, "IP_PKTINFO" },
		{ SOL_IP, IP_MTU_DISCOVER, "IP_MTU_DISCOVER" },
		{ SOL_IP, IP_MTU, "IP_MTU" },
		{ SOL_IP, IP_BIND_ADDRESS_NO_PORT, "IP_BIND_ADDRESS_NO_PORT" },
		{ SOL_SOCKET, SO_BINDTODEVICE, "SO_BINDTODEVICE" },
		{ SOL_IPV6, IPV6_MTU, "IPV6_MTU" },
		{ SOL_IPV6, IPV6_DONTFRAG, "IPV6_DONTFRAG" },
		{ SOL_PACKET, PACKET_STATISTICS, "PACKET_STATISTICS" },
		{ SOL_IPV6, IPV6_V6ONLY, "IPV6_V6ONLY" },
		{ SOL_IPV6, IPV6_RECVERR, "IPV6_RECVERR" },
		{ SOL_IPV6, IPV6_UNICAST_HOPS, "IPV6_UNICAST_HOPS" },
		{ SOL_IPV6, IPV6_RECVPKTINFO, "IPV6_RECVPKTINFO" },
		{ SOL_UDP, 104, "UDP_GRO" },
	};

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (names[i].level == level && names[i].name == name)
			return names[i].text;
	snprintf(text, sizeof text, "%ld/%ld", level, name);
	return text;
}

static void site_of(const Regs *regs, char *name)
{
	long fd = (int)regs->rdi;

#define SITE(...) ((void)snprintf(name, NAME, __VA_ARGS__))
	switch (regs->orig_rax) {
	case SYS_read: SITE("read %s", kind(fd)); break;
	case SYS_write: SITE("write %s", kind(fd)); break;
	case SYS_writev: SITE("writev %s", kind(fd)); break;
	case SYS_close: SITE("close"); break;
	case SYS_socket: SITE("socket %s", socket_kind(regs)); break;
	case SYS_connect: SITE("connect %s", kind(fd)); break;
	case SYS_bind: SITE("bind %s", kind(fd)); break;
	case SYS_setsockopt: SITE("setsockopt %s %s", option_name(regs->rsi, regs->rdx), kind(fd)); break;
	case SYS_getsockopt: SITE("getsockopt %s %s", option_name(regs->rsi, regs->rdx), kind(fd)); break;
	case SYS_shutdown: SITE("shutdown %s", kind(fd)); break;
	case SYS_accept4: SITE("accept4 %s", kind(fd)); break;
	case SYS_sendmsg: SITE("sendmsg %s", kind(fd)); break;
	case SYS_sendmmsg: SITE("sendmmsg %s", kind(fd)); break;
	case SYS_recvmsg: 
		SITE(regs->rdx & MSG_ERRQUEUE ? "recvmsg errors of %s" : "recvmsg %s",
		     kind(fd));
		break;
	case SYS_recvmmsg: SITE("recvmmsg %s", kind(fd)); break;
	case SYS_pipe2: SITE("pipe2"); break;
	case SYS_fcntl: SITE(regs->rsi == F_GETFD ? "look" : "fcntl %s", kind(fd)); break;
	case SYS_splice: {
		const char *from = kind((int)regs->rdi);

		if (!strcmp(from, "pipe"))
			SITE("splice to %s", kind((int)regs->rdx));
		else
			SITE("splice from %s", from);
		break;
	}
	case SYS_epoll_wait: SITE("epoll_wait"); break;
	case SYS_epoll_ctl:
		SITE("epoll_ctl %s %s", regs->rsi == EPOLL_CTL_ADD ? "add" : "delete",
		     kind((int)regs->rdx));
		break;
	case SYS_timerfd_settime: SITE("timerfd_settime"); break;
	case SYS_ppoll: SITE("ppoll"); break;
	case SYS_waitid: SITE("waitid"); break;
	case SYS_mmap: case SYS_munmap: case SYS_mremap: case SYS_brk: SITE("memory"); break;
	default: SITE("call %lld", regs->orig_rax); break;
	}
}

static void count(const char *name)
{
	int i = 0;

	while (i < site_count && strcmp(sites[i].name, name))
		i++;
	if (i == SITES)
		return;
	if (i == site_count)
		strcpy(sites[site_count++].name, name);
	sites[i].count++;
}

/* Whether this is to fail now. */
static int is_due(const char *name)
{
	double time = now();

	if (!fault.left || strcmp(fault.site, name))
		return 0;
	if (fault.met && time - fault.first > fault.ms)
		return 0;
	if (!fault.met++)
		fault.first = time;
	fault.last = time;
	fault.left--;
	return 1;
}

static void set(const Regs *regs)
{
	check(ptrace(PTRACE_SETREGS, pid, 0, regs), "set registers");
}

static Regs get(void)
{
	Regs regs;

	check(ptrace(PTRACE_GETREGS, pid, 0, &regs), "registers");
	return regs;
}

static void go(int signal)
{
	check(ptrace(PTRACE_SYSCALL, pid, 0, signal), "go on");
}

/* To the next entry or exit of a call. */
static void step(void)
{
	int status;

	go(0);
	check(waitpid(pid, &status, __WALL), "wait");
	if (!WIFSTOPPED(status))
		exit(0);
}

/* "Would block" is followed by an event once it would not, whatever was there before:
 * has the process register the descriptor again, which makes one. */
static void ring_again(const Regs *after, int fd)
{
	long saved[2], fresh[2] = { 0, 0 };
	unsigned long at = (after->rsp - 512) & ~15ul;
	struct epoll_event event;
	Regs regs = *after;
	int epoll = is_watched(fd, &event);

	if (epoll < 0)
		return;
	memcpy(fresh, &event, sizeof event);
	for (int i = 0; i < 2; i++) {
		saved[i] = ptrace(PTRACE_PEEKDATA, pid, at + 8 * i, 0);
		check(ptrace(PTRACE_POKEDATA, pid, at + 8 * i, fresh[i]), "write");
	}
	/* Two bytes before are the instruction that makes a call. */
	regs.rip -= 2;
	regs.orig_rax = -1;
	regs.rax = SYS_epoll_ctl;
	regs.rdi = epoll;
	regs.rsi = EPOLL_CTL_MOD;
	regs.rdx = fd;
	regs.r10 = at;
	set(&regs);
	step();
	step();
	for (int i = 0; i < 2; i++)
		check(ptrace(PTRACE_POKEDATA, pid, at + 8 * i, saved[i]), "write");
	regs = *after;
	regs.orig_rax = -1;
	set(&regs);
}

/* What a call that has succeeded has opened. */
static void learn(const Regs *entry, long result)
{
	if (result < 0)
		return;
	switch (entry->orig_rax) {
	case SYS_socket:
		opened(result, socket_kind(entry));
		break;
	case SYS_accept4:
		opened(result, strcmp(kind((int)entry->rdi), "listener") ? "control client" : "accepted");
		break;
	case SYS_pipe2: {
		long both = ptrace(PTRACE_PEEKDATA, pid, entry->rdi, 0);

		opened(both & 0xffffffff, "pipe");
		opened(both >> 32, "pipe");
		break;
	}
	}
}

static void on_call(void)
{
	static Regs entry;
	static int inside, failed;
	Regs regs = get();
	char name[NAME];
	long half;

	if (!inside) {
		inside = 1;
		failed = 0;
		entry = regs;
		calls++;
		site_of(&regs, name);
		count(name);
		if (is_due(name)) {
			failed = 1;
			if (fault.what) {
				regs.orig_rax = SYS_close;
				regs.rdi = -1;
			} else if (regs.orig_rax == SYS_splice) {
				regs.r8 = 1;
			} else if (regs.orig_rax == SYS_write || regs.orig_rax == SYS_writev ||
				   regs.orig_rax == SYS_sendmmsg) {
				half = regs.rdx / 2;
				regs.rdx = half ? half : 1;
			}
			set(&regs);
		} else if (regs.orig_rax == SYS_close && (int)regs.rdi >= 0 && (int)regs.rdi < FDS) {
			kinds[(int)regs.rdi][0] = 0;
			ours[(int)regs.rdi] = 0;
		}
		return;
	}
	inside = 0;
	if (!failed) {
		learn(&entry, regs.rax);
		return;
	}
	regs.rdi = entry.rdi;
	regs.rdx = entry.rdx;
	regs.r8 = entry.r8;
	if (fault.what)
		regs.rax = -fault.what;
	set(&regs);
	/* A call that takes less than it was given says the same (epoll(7)). */
	if (fault.what == EAGAIN || !fault.what)
		ring_again(&regs, entry.orig_rax == SYS_splice && !strcmp(kind((int)entry.rdi), "pipe")
				  ? (int)entry.rdx : (int)entry.rdi);
}

static void command(char *line)
{
	if (!strncmp(line, "fault ", 6)) {
		char what[16];

		memset(&fault, 0, sizeof fault);
		if (sscanf(line, "fault %95[^|]|%15[^|]|%ld|%ld", fault.site, what, &fault.left,
			   &fault.ms) != 4)
			exit(3);
		fault.what = atoi(what);
	} else if (!strcmp(line, "off")) {
		printf("%ld %.3f %.3f\n", fault.met, now() - fault.first, now() - fault.last);
		fault.left = 0;
	} else if (!strcmp(line, "sites")) {
		for (int i = 0; i < site_count; i++)
			printf("%lu %s\n", sites[i].count, sites[i].name);
	} else if (!strcmp(line, "open")) {
		for (int i = 0; i < FDS; i++)
			if (ours[i])
				printf("1 %s\n", kinds[i]);
	} else if (!strcmp(line, "calls")) {
		printf("%lu\n", calls);
	}
	printf(".\n");
	fflush(stdout);
}

static void read_commands(void)
{
	static char buffer[1024];
	static size_t have;
	ssize_t got = read(0, buffer + have, sizeof buffer - 1 - have);
	char *end;

	if (got <= 0) {
		/* The test is over; the process goes on. */
		ptrace(PTRACE_INTERRUPT, pid, 0, 0);
		waitpid(pid, NULL, __WALL);
		ptrace(PTRACE_DETACH, pid, 0, 0);
		exit(0);
	}
	have += got;
	buffer[have] = 0;
	while ((end = strchr(buffer, '\n'))) {
		*end = 0;
		command(buffer);
		have -= end + 1 - buffer;
		memmove(buffer, end + 1, have + 1);
	}
}

static void on_stop(int status)
{
	int signal = WSTOPSIG(status);

	if (signal == (SIGTRAP | 0x80)) {
		on_call();
		go(0);
	} else if (status >> 16) {
		go(0);
	} else {
		go(signal);
	}
}

int main(int argc, char **argv)
{
	sigset_t set;
	int status, signals;

	if (argc != 2)
		return 3;
	pid = atoi(argv[1]);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	check(sigprocmask(SIG_BLOCK, &set, NULL), "block signals");
	signals = signalfd(-1, &set, SFD_NONBLOCK);
	check(signals, "signalfd");
	check(ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD), "seize");
	check(ptrace(PTRACE_INTERRUPT, pid, 0, 0), "interrupt");
	check(waitpid(pid, &status, __WALL), "wait");
	go(0);
	printf("ready\n.\n");
	fflush(stdout);
	for (;;) {
		struct pollfd fds[] = { { 0, POLLIN, 0 }, { signals, POLLIN, 0 } };
		struct signalfd_siginfo info;
		pid_t changed;

		while ((changed = waitpid(pid, &status, __WALL | WNOHANG)) == pid) {
			if (!WIFSTOPPED(status))
				return 0;
			on_stop(status);
		}
		check(changed, "wait");
		check(poll(fds, 2, -1), "poll");
		if (fds[1].revents && read(signals, &info, sizeof info) < 0 && errno != EAGAIN)
			return 2;
		if (fds[0].revents)
			read_commands();
	}
}
