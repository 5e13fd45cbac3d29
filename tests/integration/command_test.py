#!/usr/bin/env python3
"""The `sublet` command as people and shells meet it: terminals, signals, closed outputs, man page, completion."""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.request

from sublet_site import BIN, FUNCTIONS, PATIENCE_S, SPIN, Site, number, wait_until

SUBLET = os.path.join(BIN, "sublet")


def run(*arguments, **options):
    return subprocess.run([SUBLET, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False, **options)


def busy(pid):
    """A function that spins, unlike a worker that waits, is on a processor, also a moment later."""
    def cpu():
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                return sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13]))
        except OSError:
            return 0

    before = cpu()
    time.sleep(0.1)
    return cpu() - before >= 4


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, *command, env):
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            with contextlib.suppress(OSError):
                os.execvpe(command[0], command, dict(env, TERM="xterm"))
            os._exit(127)
        self.seen = ""

    def write(self, text):
        os.write(self.descriptor, text.encode())

    def read_until(self, done, what):
        """Reads until `done` holds for what was seen; returns it."""
        end = time.monotonic() + PATIENCE_S
        while not done(self.seen):
            if time.monotonic() > end or not self.read_more():
                raise AssertionError(f"{what}; seen: {self.seen!r}")
        return self.seen

    def expect(self, text):
        return self.read_until(lambda seen: text in seen, f"{text!r} did not come")

    def read_more(self):
        if not select.select([self.descriptor], [], [], 1)[0]:
            return True
        try:
            piece = os.read(self.descriptor, 65536)
        except OSError:  # The program has ended.
            return False
        self.seen += piece.decode(errors="replace")
        return bool(piece)

    def end(self):
        """Reads on to the end: the exit code."""
        end = time.monotonic() + PATIENCE_S
        while self.read_more():
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"it goes on; seen: {self.seen!r}")
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.descriptor)


class DescriptionTest(unittest.TestCase):
    """Needs no site."""

    def setUp(self):
        self.man = run("--print-man").stdout
        self.commands = re.findall(r"^  ([a-z]+)\b", run("--help").stdout.split("Commands:")[1].split("\n\n")[0], re.MULTILINE)

    @staticmethod
    def options(text):
        return set(re.findall(r"^  --([a-z-]+)", text, re.MULTILINE))

    def test_man_page_and_help_tell_the_same_options(self):
        self.assertIn("drain", self.commands)
        sections = dict(re.findall(r"^\.SS \\fBsublet ([a-z]+)\\fR.*?\n(.*?)(?=^\.S[SH] )", self.man, re.MULTILINE | re.DOTALL))
        self.assertEqual(sorted(sections), sorted(self.commands))

        def of_page(text):
            return {name.replace("\\-", "-") for name in re.findall(r"^\\fB\\-\\-([a-z\\-]+)\\fR", text, re.MULTILINE)}

        common = of_page(self.man.split(".SH OPTIONS")[1].split(".SH ")[0])
        for command in self.commands:
            with self.subTest(command=command):
                helped = self.options(run(command, "--help").stdout)
                self.assertIn("manager", helped)
                self.assertEqual(helped - common, of_page(sections[command]) - common)
                self.assertLessEqual(common - helped, {"version"})
        self.assertEqual(self.options(run("--help").stdout), {"help", "version"})

    def test_man_page_pleases_its_readers(self):
        with tempfile.NamedTemporaryFile("w", suffix=".1") as page:
            page.write(self.man)
            page.flush()
            tried = 0
            for tool in (["groff", "-man", "-ww", "-Tutf8", "-z"], ["mandoc", "-Tlint", "-Wwarning"]):
                if shutil.which(tool[0]) is None:
                    print(f"{tool[0]} is not installed: not tried")
                    continue
                done = subprocess.run([*tool, page.name], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
                # A page with a date would be another one at each build.
                complaints = [line for line in (done.stdout + done.stderr).splitlines() if "missing date" not in line]
                self.assertEqual(complaints, [], tool)
                tried += 1
        if not tried:
            self.skipTest("neither groff nor mandoc is installed")

    def test_every_exit_code_is_told_in_help_and_man_page(self):
        helped = set(re.findall(r"^  (\d+) ", run("--help").stdout, re.MULTILINE))
        page = set(re.findall(r"^\\fB(\d+)\\fR", self.man, re.MULTILINE))
        self.assertEqual(helped, page)
        self.assertEqual(helped, {"0", "1", "2", "3", "4", "5", "6", "7", "130"})

    def test_completion_scripts_are_in_order(self):
        for shell in ("bash", "zsh", "fish"):
            with self.subTest(shell=shell):
                script = run("completion", shell).stdout
                for command in self.commands:
                    self.assertIn(command, script)
                if shutil.which(shell) is None:
                    print(f"{shell} is not installed: its script is not tried")
                    continue
                self.assertEqual(subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, check=False,
                                                timeout=PATIENCE_S).stderr, "")
        if shutil.which("shellcheck"):
            found = subprocess.run(["shellcheck", "--shell=bash", "-"], input=run("completion", "bash").stdout, text=True,
                                   capture_output=True, timeout=PATIENCE_S, check=False)
            self.assertEqual(found.stdout, "")

    def test_help_is_found_and_fits_a_terminal(self):
        self.assertEqual(run("nodes", "-h").stdout, run("nodes", "--help").stdout)
        self.assertEqual(run("help", "nodes").stdout, run("nodes", "--help").stdout)
        self.assertEqual(run("-h").stdout, run("help").stdout)
        for arguments in ((), *((command,) for command in self.commands)):
            for line in run("help", *arguments).stdout.splitlines():
                self.assertLessEqual(len(line), 80, line)

    def test_a_wrong_word_is_named(self):
        for arguments, said in ((("help", "node"), "no command 'node'; did you mean 'nodes'?"),
                                (("nodes", "-x"), "there is no option -x"),
                                (("nodes", "--manager"), "--manager needs URL"),
                                (("invoke", "a@1", "--repeat"), "--repeat needs N"),
                                (("completion", "bash", "--json"), "leave --json out")):
            with self.subTest(arguments=arguments):
                done = run(*arguments)
                self.assertEqual(done.returncode, 2)
                self.assertIn(said, done.stderr + done.stdout)

    def test_the_doctor_tells_what_fails_and_what_to_do(self):
        done = run("doctor", "--json", "--manager", "http://127.0.0.1:1")
        checks = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
        self.assertEqual(done.returncode, 1)
        self.assertEqual(checks["manager"]["level"], "fail")
        self.assertIn("SUBLET_MANAGER", checks["manager"]["found"])
        for each in ("sublet", "kernel", "processors", "cgroup v2", "transport tcp", "transport shm", "transport verbs",
                     "locked memory", "open files", "/dev/shm"):
            self.assertTrue(checks[each]["found"], each)
        self.assertIn("libfabric 1.", checks["transport tcp"]["found"])
        narrow = subprocess.run(["bash", "-c", 'ulimit -n 256 && exec "$0" doctor --manager http://127.0.0.1:1', SUBLET],
                                capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        self.assertRegex(narrow.stdout, r"(?m)^warn +open files +256.*\n.*ulimit -n")


class SiteTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.site = Site()
        cls.addClassCleanup(cls.site.close)
        cls.site.start_agent("node7", "--cores", "2", "--oversubscribe", ready=2)
        cls.site.deploy_probe()
        cls.env = dict(cls.site.env, PATH=BIN + ":" + os.environ["PATH"])

    def setUp(self):
        self.site.wait_ready("node7", 2)

    def sublet(self, *arguments, **options):
        return run(*arguments, env=self.env, **options)

    def terminal(self, *command, env):
        terminal = Terminal(*command, env=env)
        self.addCleanup(terminal.close)
        return terminal

    def active(self):
        return [lease for lease in self.site.get("/v1/leases")["leases"] if lease["state"] == "active"]

    # --- Outputs ------------------------------------------------------------------------------------

    def test_json_is_one_document_also_on_errors(self):
        for arguments, code in ((("nodes",), 0), (("leases",), 0), (("functions",), 0), (("top",), 0),
                                (("drain", "node8"), 4), (("revoke", "7"), 4), (("remove", "x@1"), 4), (("undrain", "node7"), 0),
                                (("invoke", "probe@1"), 0), (("invoke", "probe@1", "--entry", "1"), 6),
                                (("invoke", "probe@1", "--workers", "50", "--wait", "0"), 5), (("drain",), 2),
                                (("nodes", "--manager", "http://127.0.0.1:1"), 3),
                                (("deploy", "a@1", "/nonexistent"), 1)):
            with self.subTest(arguments=arguments):
                self.site.wait_ready("node7", 1)
                done = self.sublet(*arguments, "--json")
                self.assertEqual((done.returncode, done.stderr), (code, ""), done)
                document = json.loads(done.stdout)
                self.assertEqual("error" in document and "message" in document, code != 0)

    def test_what_is_not_there_is_named_before_any_call(self):
        for arguments, code, said in (
                (("invoke", "prone@1"), 4, "no function prone@1 is deployed; did you mean 'probe@1'?"),
                (("invoke", "other"), 4, "no function other is deployed; `sublet functions` lists them"),
                (("remove", "probe@2"), 4, "no function probe@2 is deployed; did you mean 'probe@1'?"),
                (("invoke", "probe@1", "--entry", "99"), 1, "--entry: probe@1 has no entry 99"),
                (("invoke", "probe@1", "--output", "/nonexistent/file"), 1, "there is no folder /nonexistent"),
                (("invoke", "probe@1", "--output", "/tmp"), 1, "/tmp is a folder; name a file in it")):
            with self.subTest(arguments=arguments):
                done = self.sublet(*arguments)
                self.assertEqual((done.returncode, said in done.stderr), (code, True), done)

    def test_a_closed_or_full_output_is_told(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([SUBLET, "nodes"], stdout=full, stderr=subprocess.PIPE, env=self.env, text=True,
                                  timeout=PATIENCE_S, check=False)
            self.assertEqual((done.returncode, "No space left" in done.stderr), (1, True), done)
        shell = subprocess.run(["bash", "-c", "sublet nodes >&-; echo $? >&2"], capture_output=True, env=self.env, text=True,
                               timeout=PATIENCE_S, check=False)
        self.assertRegex(shell.stderr, r"cannot write to standard output.*\n1\n$")
        shell = subprocess.run(["bash", "-o", "pipefail", "-c", "sublet invoke probe@1 --input /usr/bin/python3 --output-bytes 64M "
                                "| head -c 1 >/dev/null; echo ${PIPESTATUS[0]}"],
                               capture_output=True, env=self.env, text=True, timeout=PATIENCE_S, check=False)
        self.assertEqual((shell.stdout, shell.stderr), (f"{128 + signal.SIGPIPE}\n", ""))
        wait_until(lambda: not self.active(), "the lease is given back before the output is written")

    def test_colours_only_on_a_terminal_and_when_wanted(self):
        self.assertNotIn("\x1b", self.sublet("nodes").stdout)
        for arguments, env, coloured in (((), self.env, True), (("--no-color",), self.env, False),
                                         ((), dict(self.env, NO_COLOR="1"), False)):
            terminal = self.terminal(SUBLET, "nodes", *arguments, env=env)
            self.assertEqual(terminal.end(), 0)
            self.assertIn("node7", terminal.seen)
            self.assertEqual("\x1b" in terminal.seen, coloured, (arguments, terminal.seen))

    def test_progress_on_a_terminal_only(self):
        call = ("invoke", "probe@1", "--entry", str(SPIN), "--input", self.input_of(200), "--repeat", "15")
        terminal = self.terminal(SUBLET, *call, env=self.env)
        self.assertEqual(terminal.end(), 0)
        self.assertRegex(terminal.seen, r"\d+ of 15 calls, 1\.\d s")
        self.assertIn("15 calls, 0 failed", terminal.seen.rsplit("\x1b[K", 1)[1])
        self.assertNotIn("of 15 calls", self.sublet(*call).stderr)

    def input_of(self, milliseconds):
        path = os.path.join(self.site.directory, f"spin-{milliseconds}")
        with open(path, "wb") as file:
            file.write(number(milliseconds))
        return path

    # --- Signals ------------------------------------------------------------------------------------

    def test_ctrl_c_ends_a_long_run_in_order(self):
        terminal = self.terminal(SUBLET, "invoke", "probe@1", "--entry", str(SPIN), "--input", self.input_of(50), "--repeat", "100000",
                            env=self.env)
        terminal.expect("of 100000 calls")
        terminal.write("\x03")
        self.assertEqual(terminal.end(), 130)
        self.assertRegex(terminal.seen, r"\d+ calls, 0 failed")
        self.assertEqual(self.active(), [])

    def test_a_second_ctrl_c_ends_at_once(self):
        terminal = self.terminal(SUBLET, "invoke", "probe@1", "--entry", str(SPIN), "--input", self.input_of(20_000), "--repeat", "3",
                            env=self.env)
        terminal.expect("0 of 3 calls")
        terminal.write("\x03")
        terminal.expect("Ctrl-C again")
        terminal.write("\x03")
        self.assertEqual(terminal.end(), -signal.SIGINT)
        for lease in self.active():
            self.sublet("revoke", str(lease["lease"]))
        self.assertEqual(self.active(), [])

    # --- Steering -----------------------------------------------------------------------------------

    def test_drain_waits_no_longer_than_told(self):
        site = Site()
        try:
            site.start_agent("slow", "--cores", "1", "--oversubscribe", "--drain-ms", "60000")
            site.deploy_probe()
            call = site.call_in_background(SPIN, number(25_000))
            wait_until(lambda: any(busy(pid) for pid in site.workers()), "the call is in flight")
            done = run("drain", "slow", "--wait", "--wait-max", "1", env=site.env)
            self.assertEqual(done.returncode, 7, done)
            self.assertIn("sublet leases", done.stderr)
            call.kill()  # Its worker has nobody to serve any more.
            done = run("drain", str(site.node("slow")["node"]), "--wait", env=site.env)
            self.assertEqual((done.returncode, done.stdout), (0, "slow is drained; it holds 0 of 1 core\n"))
        finally:
            site.close()

    def test_a_cordoned_node_is_granted_no_more(self):
        self.assertEqual(self.sublet("cordon", "node7").returncode, 0)
        self.assertRegex(self.sublet("nodes").stdout, r"node7 +\d+ +cordoned")
        self.assertEqual(self.sublet("invoke", "probe@1", "--wait", "0").returncode, 5)
        self.assertEqual(self.sublet("uncordon", "node7").returncode, 0)
        self.assertEqual(self.sublet("invoke", "probe@1").returncode, 0)

    def test_usage_counts_what_was_called_and_tenants_what_they_hold(self):
        call = ("invoke", "probe@1", "--tenant", "counting", "--repeat", "30")
        self.assertEqual(self.sublet(*call).returncode, 0)

        def counted(*arguments):
            rows = json.loads(self.sublet("usage", "--tenant", "counting", "--json", *arguments).stdout)["rows"]
            return sum(row["calls"] for row in rows)

        for by in ("lease", "worker", "tenant", "function"):
            wait_until(lambda by=by: counted("--by", by) == 30, f"30 calls are counted by {by}")
        self.assertRegex(self.sublet("usage", "--tenant", "counting").stdout, r"\ncounting +1 +1 +30 ")
        self.assertEqual(self.sublet("usage", "--function", "other@1", "--csv").stdout.count("\n"), 1)
        self.assertEqual(counted("--function", "probe@1"), 30)
        self.assertEqual(counted("--function", "probe"), 30)
        busy = self.terminal(SUBLET, *call[:-1], "100000", "--entry", str(SPIN), "--input", self.input_of(50), env=self.env)
        busy.expect("of 100000 calls")
        self.assertRegex(self.sublet("tenants").stdout, r"\ncounting +1 +1 +- +1 +- +0")
        self.assertRegex(self.sublet("leases", "--tenant", "counting").stdout, r"counting +probe@1 +active +1 +1 ")
        self.assertEqual(self.sublet("leases", "--tenant", "nobody").stdout, "no active leases\n")
        busy.write("\x03")
        self.assertEqual(busy.end(), 130)

    # --- top ----------------------------------------------------------------------------------------

    def test_top_draws_resizes_and_gives_the_terminal_back(self):
        for key in ("q", "\x03"):
            with self.subTest(key=key):
                terminal = self.terminal("bash", "-c", 'stty rows 30 cols 100; sublet top --interval 0.1; echo "ended $?"; stty -a',
                                    env=self.env)
                terminal.expect("node7")
                terminal.expect("q ends")
                frames = terminal.seen.count("\x1b[H")
                terminal.read_until(lambda seen, least=frames + 2: seen.count("\x1b[H") >= least, "it draws again")
                terminal.write(key)
                terminal.expect("ended 0")
                self.assertEqual(terminal.end(), 0)
                after = terminal.seen[terminal.seen.rindex("\x1b[?1049l"):]
                self.assertIn("\x1b[?25h", terminal.seen)
                self.assertRegex(after, r"\bicanon\b.* echo\b|\s echo\b")
                self.assertNotRegex(after, r"-icanon|-isig|-echo\b")

    def test_top_follows_the_size_and_ends_by_signal(self):
        terminal = self.terminal("bash", "-c", "stty rows 30 cols 100; echo $$; exec sublet top --interval 3600", env=self.env)
        terminal.expect("q ends")
        subprocess.run(["stty", "rows", "12", "cols", "40"], stdin=terminal.descriptor, check=True)
        terminal.seen = ""

        def fits(seen):  # stty sets rows and columns one after the other: there may be a frame between.
            last = seen[seen.rindex("\x1b[H"):] if "\x1b[H" in seen else ""
            lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last).split("\r\n")
            return "q ends" in last and len(lines) == 12 and max(map(len, lines)) <= 40

        terminal.read_until(fits, "it draws for the new size without waiting")
        os.kill(terminal.pid, signal.SIGTERM)
        self.assertEqual(terminal.end(), 0)
        self.assertIn("\x1b[?1049l", terminal.seen)

    def test_a_manager_that_goes_while_a_call_waits_for_workers_is_told_as_such(self):
        site = Site()
        self.addCleanup(site.close)
        site.deploy_probe()
        call = subprocess.Popen([SUBLET, "invoke", "probe@1", "--wait", "60"], env=site.env, stderr=subprocess.PIPE, text=True)
        metrics = f"{site.url}/metrics"
        wait_until(lambda: "sublet_lease_waiters 1" in urllib.request.urlopen(metrics).read().decode(), "it waits")
        site.manager.kill()
        _, said = call.communicate(timeout=PATIENCE_S)
        self.assertEqual((call.returncode, "is sublet-manager running at" in said), (3, True), said)

    def test_top_goes_on_when_the_manager_is_away(self):
        site = Site()
        try:
            terminal = self.terminal(SUBLET, "top", "--interval", "0.1", env=site.env)
            terminal.expect("NODES")
            site.manager.kill()
            site.manager.wait()
            terminal.expect("trying again")
            site.start_manager()
            terminal.seen = ""
            terminal.expect("q ends")
            terminal.write("q")
            self.assertEqual(terminal.end(), 0)
        finally:
            site.close()

    def test_one_look_where_there_is_no_terminal(self):
        wait_until(lambda: self.site.node("node7")["cores_leased"] == 0, "the leases of before have gone")
        done = self.sublet("top")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"nodes: 1 up +cores leased: 0 of 2")
        self.assertNotIn("\x1b", done.stdout)

    # --- Completion ---------------------------------------------------------------------------------

    def test_bash_completes_commands_options_nodes_and_functions(self):
        shell = self.terminal("bash", "--norc", "--noprofile", "-i", env=dict(self.env, PS1="ready> ", INPUTRC="/dev/null"))
        shell.expect("ready> ")
        shell.write("bind 'set enable-bracketed-paste off'; source <(sublet completion bash); echo load''ed\n")
        shell.expect("loaded\r\nready> ")
        for typed, expected in (("sublet und", "sublet undrain "), ("sublet invoke --conc", "sublet invoke --concurrency "),
                                ("sublet drain no", "sublet drain node7 "), ("sublet drain node7 --wait-m", "--wait-max "),
                                ("sublet invoke pro", "sublet invoke probe@1 "), ("sublet invoke probe@", "sublet invoke probe@1 "),
                                ("sublet usage --by ten", "--by tenant "), ("sublet usage --by=wor", "--by=worker "),
                                ("sublet invoke probe@1 --input /etc/hostn", "/etc/hostname "),
                                (f"sublet cordon --manager {self.site.url} node", "node7 ")):
            with self.subTest(typed=typed):
                shell.seen = ""
                shell.write(typed + "\t")
                try:
                    shell.expect(expected)
                finally:
                    shell.write("\x15")
        shell.seen = ""
        shell.write("\x15exit\n")
        shell.end()

    def test_names_for_completion_are_quick_and_quiet_without_a_manager(self):
        for manager in ("http://127.0.0.1:1", "nonsense"):
            done = run("--print-names", "nodes", manager)
            self.assertEqual((done.stdout, done.stderr), ("", ""))

    # --- Examples -----------------------------------------------------------------------------------

    def test_the_examples_of_the_man_page_run(self):
        examples = [line.replace("\\-", "-") for line in
                    re.findall(r"^\.RS\n(.*)\n\.RE", run("--print-man").stdout, re.MULTILINE)]
        self.assertGreater(len(examples), 5)
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(os.path.join(FUNCTIONS, "probe_function.so"), os.path.join(folder, "hello.so"))
            with open(os.path.join(folder, "request"), "wb") as file:
                file.write(b"a request")
            for example in examples:
                with self.subTest(example=example):
                    self.site.wait_ready("node7", 0 if "drain" in example else 2)
                    done = subprocess.run(["bash", "-o", "pipefail", "-c", example], cwd=folder, env=self.env, text=True,
                                          capture_output=True, timeout=PATIENCE_S * 3, check=False)
                    self.assertEqual(done.returncode, 0, done)
            with open(os.path.join(folder, "reply"), "rb") as file:
                self.assertEqual(file.read(), b"a request")


if __name__ == "__main__":
    unittest.main(verbosity=2)
