/* Makes a running process make a system call: inject PID NUMBER [ARGUMENT...]. Prints
 * how it ended, or "went on" where it did not. x86-64 only. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(long result, const char *what) {
	if (result < 0) {
		perror(what);
		exit(2);
	}
}

int main(int argc, char **argv) {
	pid_t pid = atoi(argv[1]);
	unsigned long arguments[6] = {0};
	struct user_regs_struct saved, regs;
	int status;

	for (int i = 3; i < argc && i < 9; i++)
		arguments[i - 3] = strtoul(argv[i], NULL, 0);
	check(ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD), "seize");
	check(ptrace(PTRACE_INTERRUPT, pid, 0, 0), "interrupt");
	check(waitpid(pid, &status, __WALL), "wait");
	check(ptrace(PTRACE_GETREGS, pid, 0, &saved), "registers");
	regs = saved;
	/* It waits in a call: two bytes before are the instruction that made it. */
	regs.rip -= 2;
	regs.orig_rax = -1;
	regs.rax = strtoul(argv[2], NULL, 0);
	regs.rdi = arguments[0];
	regs.rsi = arguments[1];
	regs.rdx = arguments[2];
	regs.r10 = arguments[3];
	regs.r8 = arguments[4];
	regs.r9 = arguments[5];
	check(ptrace(PTRACE_SETREGS, pid, 0, &regs), "set registers");
	/* To the entry of the call, to its end, and on: a filter kills after that. */
	for (int stop = 0; stop < 2; stop++) {
		check(ptrace(PTRACE_SYSCALL, pid, 0, 0), "go on");
		check(waitpid(pid, &status, __WALL), "wait");
		if (!WIFSTOPPED(status))
			break;
	}
	if (WIFSTOPPED(status)) {
		saved.orig_rax = -1;
		check(ptrace(PTRACE_SETREGS, pid, 0, &saved), "set registers");
		check(ptrace(PTRACE_CONT, pid, 0, 0), "go on");
		/* Where it is not killed within a while it never will be. */
		for (int look = 0; look < 50; look++) {
			pid_t ended = waitpid(pid, &status, __WALL | WNOHANG);
			check(ended, "wait");
			if (ended == pid)
				break;
			usleep(10 * 1000);
		}
	}
	if (WIFSIGNALED(status)) {
		printf("signal %d\n", WTERMSIG(status));
		return 0;
	}
	printf("went on\n");
	return 0;
}
