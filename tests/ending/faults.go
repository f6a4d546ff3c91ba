// Go that calls C turns its faults into errors, takes signals, and starts programs, from many threads.
package main

/*
#include <stdlib.h>
#include <string.h>

static int work(int bytes) {
	char *p = malloc(bytes);
	memset(p, 1, bytes);
	int result = p[bytes - 1];
	free(p);
	return result;
}
static int stale(int bytes) {
	volatile char *p = malloc(bytes);
	p[0] = 1;
	free((void *)p);
	return p[0];
}
*/
import "C"

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"sync"
	"syscall"
	"time"
)

var nowhere *int

func fault() (err interface{}) {
	defer func() { err = recover() }()
	*nowhere = 1
	return nil
}

func each(count int, run func()) {
	var wait sync.WaitGroup
	for i := 0; i < count; i++ {
		wait.Add(1)
		go func() { defer wait.Done(); run() }()
	}
	wait.Wait()
}

func main() {
	if len(os.Args) > 1 {
		each(4, func() { C.stale(5000) })
		return
	}
	fmt.Println(fault())
	each(8, func() {
		runtime.LockOSThread()
		for i := 0; i < 50; i++ {
			if C.work(100) != 1 || fault() == nil {
				panic("no error")
			}
		}
	})
	each(100, func() { fault(); C.work(5000); runtime.GC() })

	sent := make(chan os.Signal, 4)
	signal.Notify(sent, syscall.SIGUSR1, syscall.SIGSEGV)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println(<-sent)
	syscall.Kill(os.Getpid(), syscall.SIGSEGV)
	fmt.Println(<-sent)

	var profile bytes.Buffer
	pprof.StartCPUProfile(&profile)
	for began := time.Now(); time.Since(began) < 200*time.Millisecond; {
		C.work(100)
		fault()
	}
	pprof.StopCPUProfile()
	fmt.Println("profile", profile.Len() > 100)

	count := 0
	go func() {
		for {
			count++
		}
	}()
	time.Sleep(20 * time.Millisecond)
	runtime.GC()
	fmt.Println("preempted")

	each(8, func() {
		said, err := exec.Command("/bin/echo", "executed").Output()
		if string(said) != "executed\n" || err != nil || fault() == nil {
			panic(fmt.Sprint(string(said), err))
		}
	})
	fmt.Println("executed")
}
