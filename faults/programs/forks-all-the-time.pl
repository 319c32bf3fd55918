# Starts processes in groups of their own all the time, until it is killed; $1 says how. $2 only marks them.
use strict;
use warnings;
use POSIX ();

my ($manner, $mark) = @ARGV;

sub doze { select undef, undef, undef, $_[0] }
# A child that leads a session; returns in both.
sub leader { my $pid = fork // die "fork: $!"; POSIX::setsid() unless $pid; return $pid }
sub sleeps { leader() or do { $SIG{TERM} = 'DEFAULT'; sleep 1000; exit } }

$| = 1;
print qq({"event":"agent","stream":"assistant","data":{"delta":"word"}}\n);
if ($manner eq 'dies') {
  while (1) { sleeps(); doze(0.003) }
} elsif ($manner eq 'ignores') {
  $SIG{TERM} = 'IGNORE';
  while (1) { sleeps(); doze(0.003) }
} elsif ($manner eq 'has-another-fork') {
  if (!leader()) { $SIG{TERM} = 'IGNORE'; while (1) { sleeps(); doze(0.003) } }
  sleep 1000;
} elsif ($manner eq 'forks-when-asked') {
  $SIG{TERM} = sub { for (1 .. 20) { sleeps() } exit 0 };
  sleep 1000 while 1;
} elsif ($manner eq 'hands-over') {
  # Each one soon starts the next, and ends: nobody lives for long.
  $SIG{TERM} = 'IGNORE';
  if (!leader()) { while (1) { doze(0.02); exit if leader() } }
  sleep 1000;
}
