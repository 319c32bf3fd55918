# Prints as many words as $1 says, at once, and ends with the exit code $2, with a reason on stderr unless
# that is 0. $3 seconds after its end, another process freezes the server, for $4 seconds.
use strict;
use warnings;
use Fcntl;
use POSIX ();
use Time::HiRes;

my ($words, $code, $after, $seconds) = @ARGV;
my $server = getppid();
my $agent = $$;
if (!(fork // die "fork: $!")) {
  POSIX::setsid();
  close STDOUT;
  close STDERR;
  1 while getppid() == $agent;
  my $until = Time::HiRes::time() + $after;
  1 while Time::HiRes::time() < $until;
  kill 'STOP', $server;
  select undef, undef, undef, $seconds;
  kill 'CONT', $server;
  POSIX::_exit(0);
}
# Room for all, so that it need not wait until it is read.
fcntl STDOUT, 1031, 1 << 20 or die "F_SETPIPE_SZ: $!";
my $text = join '', map { sprintf qq({"event":"agent","stream":"assistant","data":{"delta":"%d;"}}\n), $_ } 1 .. $words;
syswrite(STDOUT, $text) == length $text or die "the pipe took a part only: $!";
syswrite STDERR, "Error: the reason\n" if $code;
POSIX::_exit($code);
